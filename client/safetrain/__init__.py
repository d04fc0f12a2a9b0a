"""The `safetrain` command and the Python API.

    import safetrain

    checked = safetrain.preflight(model="demo")
    job = safetrain.submit(model="demo", settings=checked.settings)
    for step in job.steps():
        print(step.step, step.loss)
    print(job.wait(), safetrain.ask("Qual foi a melhor classificação do Farense?"))

Errors are `safetrain.SafetrainError`; `str(error)` is a sentence for the user.

With asyncio: `async with safetrain.AsyncClient() as client`, which has the same methods.

The names below are imported from `safetrain.api` at their first use, so that the command starts
quickly.
"""

# ruff: noqa: F403, F405 (api has the same names in its __all__; a test compares the two)
from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safetrain.api import *

__all__ = [
    "AlreadyFinished",
    "Answer",
    "AskOptions",
    "AsyncClient",
    "AsyncJob",
    "Blocked",
    "Broken",
    "Busy",
    "Client",
    "Conflict",
    "Damaged",
    "Evaluated",
    "Evaluation",
    "Event",
    "Finding",
    "Incompatible",
    "InvalidInput",
    "InvalidSetting",
    "Job",
    "JobOptions",
    "JobSpec",
    "JobState",
    "Metrics",
    "NoRoom",
    "NotAllowed",
    "NotFound",
    "Plan",
    "Preflight",
    "Prepared",
    "Preview",
    "SafetrainError",
    "Sample",
    "Status",
    "StepDone",
    "TrainingSettings",
    "Unreachable",
    "ask",
    "connect",
    "jobs",
    "preflight",
    "prepare",
    "preview",
    "submit",
    "validate",
]

if TYPE_CHECKING:
    __version__: str
else:  # type checkers would accept any name

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            return version("safetrain")
        if name not in __all__:
            raise AttributeError(f"module 'safetrain' has no attribute {name!r}")
        from safetrain import api

        return getattr(api, name)

    def __dir__() -> list[str]:
        return [*__all__, "__version__"]

"""The `safetrain` command and the Python API.

    import safetrain

    sheet = safetrain.preflight(model="demo")
    job = safetrain.submit(model="demo", settings=sheet.settings)
    for step in job.steps():
        print(step.step, step.loss)
    print(job.wait(), safetrain.ask("Qual foi a melhor classificação do Farense?"))

What goes wrong is a `safetrain.SafetrainError`; `str()` of it is a sentence.

With asyncio: `async with safetrain.AsyncClient() as client`, and the same names on it.

The parts live in `safetrain.api` and are loaded when first used, so that the command stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safetrain.api import (
        AlreadyFinished,
        Answer,
        AsyncClient,
        AsyncJob,
        Blocked,
        Broken,
        Busy,
        Client,
        Conflict,
        Damaged,
        Evaluated,
        Evaluation,
        Event,
        Finding,
        Incompatible,
        InvalidInput,
        InvalidSetting,
        Job,
        JobOptions,
        JobSpec,
        JobState,
        Metrics,
        NoRoom,
        NotAllowed,
        NotFound,
        Plan,
        Preflight,
        Question,
        SafetrainError,
        Status,
        StepDone,
        TrainingSettings,
        Unreachable,
        ask,
        connect,
        jobs,
        preflight,
        submit,
        validate,
    )

__all__ = [
    "AlreadyFinished",
    "Answer",
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
    "Question",
    "SafetrainError",
    "Status",
    "StepDone",
    "TrainingSettings",
    "Unreachable",
    "ask",
    "connect",
    "jobs",
    "preflight",
    "submit",
    "validate",
]

if TYPE_CHECKING:
    __version__: str
else:  # a checker would take any name for one of ours

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

"""The `safetrain submit` command line that repeats a job."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from safetrain_shared.jobs import JobSpec
from safetrain_shared.settings import FIELDS, SettingValue, TrainingSettings

_UNITS = (("GiB", 2**30), ("MiB", 2**20))


def as_asked(spec: JobSpec, settings: TrainingSettings | None) -> str:
    """Return the command with the settings that the user chose, and the seed.

    Lines end in a backslash, so that the text can be pasted into a shell.
    """
    chosen = dict(spec.settings)
    if settings is not None:
        chosen["seed"] = settings.seed
    return _command(spec, chosen)


def pinned(spec: JobSpec, settings: TrainingSettings) -> str:
    """Return the command with every setting named."""
    return _command(spec, {name: getattr(settings, name) for name in FIELDS})


def _command(spec: JobSpec, settings: Mapping[str, SettingValue]) -> str:
    options = [
        ["--model", spec.model],
        ["--train", spec.train],
        ["--valid", spec.valid],
        ["--output", spec.output],
        ["--fresh"],
    ]
    if spec.name:
        options.append(["--name", spec.name])
    if spec.memory_budget:
        options.append(["--memory-budget", _amount(spec.memory_budget)])
    if spec.allow_shorter:
        options.append(["--allow-shorter"])
    if spec.trust_remote_code:
        options.append(["--trust-remote-code"])
    options += [["--set", f"{name}={_written(value)}"] for name, value in settings.items()]
    return " \\\n  ".join(["safetrain submit", *map(shlex.join, options)])


def _written(value: SettingValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _amount(count: int) -> str:
    """Format bytes for --memory-budget, without rounding."""
    for unit, size in _UNITS:
        if count % size == 0:
            return f"{count // size}{unit}"
    return str(count)

"""The facts that a preflight knows without any worker: machine, disk, model folder, compiler."""

from __future__ import annotations

import errno
import os
import platform
import shutil
from pathlib import Path

from safetrain_shared.jobs import JobSpec
from safetrain_shared.paths import Home, nearest_existing
from safetraind import host
from safetraind.models.model_config import read_model
from safetraind.planner.facts import Disk, Facts


def gather_facts(spec: JobSpec, home: Home, model: Path | None) -> Facts:
    """Return the facts that need no worker; `model`: its folder, None for one that is not here yet.

    Takes some milliseconds, on macOS some hundreds.
    """
    return Facts(
        host=host.gather(),
        disk=_disk(spec.output, home),
        model=read_model(spec.model, model),
        python=platform.python_version(),
        compiler=shutil.which("g++") or "",
        openblas=host.find_openblas(),
    )


def _disk(output: str, home: Home) -> Disk:
    folder, models = nearest_existing(Path(output)), nearest_existing(home.models)
    unwritable = "" if os.access(folder, os.W_OK) else os.strerror(errno.EACCES)
    if not folder.is_dir():
        unwritable = os.strerror(errno.ENOTDIR)
    return Disk(
        output=output,
        free=shutil.disk_usage(folder).free,
        models_free=shutil.disk_usage(models).free,
        same_disk=folder.stat().st_dev == models.stat().st_dev,
        unwritable=unwritable,
    )

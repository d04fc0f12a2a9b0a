"""OpenBLAS for the tests' own MLX and for workers that they start, as the daemon preloads it.

One thread in every process: several test processes share the cores, and on models as small as
these a second thread mostly spins (a training of 12 steps: 2.1 s of processor time, with one 1.5).
"""

from __future__ import annotations

import os

import pytest

from safetraind import host

_PRELOAD = "LD_PRELOAD"


def pytest_configure(config: pytest.Config) -> None:
    """Start xdist's workers with it: nothing can be preloaded in a process that already runs."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if hasattr(config, "workerinput"):
        if preloaded().items() <= os.environ.items():
            os.environ.pop(_PRELOAD, None)  # not for commands, browsers and compilers
    elif getattr(config.option, "numprocesses", None):
        os.environ.update(preloaded())


def preloaded() -> dict[str, str]:
    """Return what a worker's environment needs for OpenBLAS; nothing where there is none."""
    library = host.find_openblas()
    return {_PRELOAD: library} if library else {}

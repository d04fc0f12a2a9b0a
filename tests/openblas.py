"""OpenBLAS for the tests' own MLX and for workers that they start, as the daemon preloads it.

One thread in every process: several test processes share the cores, and on models as small as
these a second thread mostly spins (a training of 12 steps: 2.1 s of processor time, with one 1.5).
"""

from __future__ import annotations

import os

import pytest

from safetraind import host

_PRELOAD = "LD_PRELOAD"
_preloaded: dict[str, str] = {}


def pytest_configure(config: pytest.Config) -> None:
    """Start xdist's workers with it: nothing can be preloaded in a process that already runs."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    library = host.find_openblas()
    if hasattr(config, "workerinput"):
        if library and os.environ.get(_PRELOAD) == library:
            _preloaded[_PRELOAD] = os.environ.pop(_PRELOAD)  # not for commands and browsers
    elif library and getattr(config.option, "numprocesses", None):
        os.environ[_PRELOAD] = library


def preloaded() -> dict[str, str]:
    """Return what a worker's environment needs to have the OpenBLAS of this process, if any: tests
    compare trainings in this process with a worker's, to the bit.
    """
    return _preloaded

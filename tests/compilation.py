"""Whether a test runs with MLX's compilation: decided here, for the test and all that it starts.

The product compiles. On a CPU `mx.compile` calls g++, about a second for each new kernel, so only
the tests marked `compiled` do: those that train, or that compare numbers which compiling could
change. MLX keeps the kernels under `$TMPDIR/mlx/<version>/cpu`, without a lock or a rename: a
process may load a kernel that another one is still writing. So each worker of xdist has a folder
of its own for them, and two workers run all such tests, which share most kernels: one those of the
trainer, one the rest, which take about as long.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

_MARK = "pytest.mark.compiled"
_VARIABLE = "MLX_DISABLE_COMPILE"  # set to anything, it turns compilation off


def pytest_configure(config: pytest.Config) -> None:
    """Give a worker of xdist its folder, before anything imports mlx."""
    if hasattr(config, "workerinput"):
        os.environ["TMPDIR"] = folder = tempfile.mkdtemp(prefix="kernels-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Turns compilation on or off before any fixture of the test, whatever its scope, is made."""
    compiled = item.get_closest_marker("compiled") is not None
    if compiled:
        os.environ.pop(_VARIABLE, None)
    else:
        os.environ[_VARIABLE] = "1"
    if mlx := sys.modules.get("mlx.core"):  # it reads its environment once
        (mlx.enable_compile if compiled else mlx.disable_compile)()
    return (yield)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They come first: with `--no-loadscope-reorder` one worker begins with them."""
    items.sort(key=lambda item: not _compiles(item.path))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile`, all files that have a compiled test go to two workers."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = Path(super()._split_scope(nodeid))
            if not _compiles(config.rootpath / file):
                return str(file)
            return "compiled, trainer" if file.parent.name == "trainer" else "compiled, the rest"

    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


@cache
def _compiles(file: Path) -> bool:
    return _MARK in file.read_text(encoding="utf-8")

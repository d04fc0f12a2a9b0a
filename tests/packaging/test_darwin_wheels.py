"""The check of the wheels for Apple silicon finds what is there and notices what is not."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import griffe
import pytest

from scripts.darwin_wheels import missing, used_names

SOURCE = """
import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_map as mapped

def step(x):
    return mapped(nn.relu, mx.fast.rms_norm(np.abs(x), None, 1e-5).astype(mx.float32))
"""


def test_it_reads_the_names_of_mlx_from_a_module() -> None:
    assert set(used_names(SOURCE)) == {
        "mlx.core",
        "mlx.nn",
        "mlx.utils.tree_map",
        "mlx.nn.relu",
        "mlx.core.fast",
        "mlx.core.fast.rms_norm",
        "mlx.core.float32",
    }


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("mlx.core.fast.rms_norm", ""),
        ("mlx.core.arange", ""),  # overloaded
        ("mlx.core.random.state", ""),  # computed
        ("mlx.nn.losses.cross_entropy", ""),
        ("mlx.optimizers.AdamW", ""),
        ("mlx.core.fast.rms_norms", "mlx.core.fast.rms_norms is in no stub"),
        ("mlx.nn.Lineal.weight", "mlx.nn.Lineal is in no stub"),
    ],
)
def test_it_tells_what_a_wheel_lacks(name: str, problem: str) -> None:
    """By the wheel that is installed here, which is laid out like those for a Mac."""
    module, library = _installed()
    assert missing(name, module, library) == problem


def test_a_name_that_only_the_stub_has_is_noticed() -> None:
    module, _library = _installed()
    found = missing("mlx.core.compile", module, b"\0compiled\0")
    assert found == "mlx.core.compile is not in the compiled library"


def _installed() -> tuple[griffe.Module, bytes]:
    spec = find_spec("mlx")
    assert spec is not None and spec.submodule_search_locations
    folders = map(Path, spec.submodule_search_locations)
    folder = next(folder for folder in folders if any(folder.glob("core.*.so")))
    module = griffe.load("mlx", search_paths=[folder.parent], allow_inspection=False)
    assert isinstance(module, griffe.Module)
    (library,) = folder.glob("core.*.so")
    return module, library.read_bytes()

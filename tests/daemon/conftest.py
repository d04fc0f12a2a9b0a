"""A daemon with workers of play, and jobs for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from safetrain_shared.jobs import JobSpec
from tests.daemon import fakes
from tests.harness import DaemonProcess

PLAY = (sys.executable, str(Path(fakes.__file__)))
MakeSpec = Callable[..., JobSpec]


@pytest.fixture
def playing(home: Path) -> Iterator[DaemonProcess]:
    """A daemon with workers of play, not started yet."""
    process = DaemonProcess(home, PLAY)
    try:
        yield process
    finally:
        process.end()


@pytest.fixture
def make_spec(tmp_path: Path) -> MakeSpec:
    """Makes a job for it: `make_spec("out", name="pace=0.1", num_epochs=2)`, ten steps an epoch."""
    return spec_maker(tmp_path)


def spec_maker(folder: Path) -> MakeSpec:
    """Makes jobs whose model, data and output folders lie in `folder`."""
    model = folder / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer_config.json", "model.safetensors"):
        (model / name).write_text("{}")
    for name in ("train.jsonl", "valid.jsonl"):
        (folder / name).write_text('{"text": "olá"}\n')

    def make(output: str = "out", *, name: str = "", **settings: Any) -> JobSpec:
        return JobSpec(
            model=str(model),
            train=str(folder / "train.jsonl"),
            valid=str(folder / "valid.jsonl"),
            output=str(folder / output),
            name=name,
            settings={"save_steps": 5, **settings},
        )

    return make

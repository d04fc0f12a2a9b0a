"""The last word of a worker: what MLX and the disk say of failures, and what is made of it."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetrain_shared.errors import InvalidSetting
from safetrain_shared.events import Outcome
from safetrain_shared.paths import RunFolder
from safetraind.storage import event_file
from safetraind.storage.run_folder import Launch
from safetraind.worker.training.event_sink import EventSink
from safetraind.worker.training.outcome import run_and_report

METAL = "[METAL] Command buffer execution failed: "


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[EventSink]:
    """A worker's ties to a run folder; it takes SIGTERM over, which is given back."""
    handler = signal.getsignal(signal.SIGTERM)
    yield EventSink(RunFolder(tmp_path), Launch())
    signal.signal(signal.SIGTERM, handler)


def test_an_intent_that_is_a_fifo_does_not_block_a_step(sink: EventSink, tmp_path: Path) -> None:
    os.mkfifo(RunFolder(tmp_path).intent)
    assert sink.intent() == ""


def last_word(sink: EventSink, error: Exception, run: Path) -> Outcome:
    """What a worker says whose work ended in `error`."""

    def work() -> Outcome:
        raise error

    assert run_and_report(sink, work) == 0
    *_, read = event_file.read(RunFolder(run).events)
    assert isinstance(read.event.body, Outcome)
    return read.event.body


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[malloc_or_wait] Unable to allocate 9000000000 bytes.", "job.out_of_memory"),
        ("[malloc] Unable to allocate 123456789012 bytes.", "job.out_of_memory"),
        (
            "[metal::malloc] Attempting to allocate 135383101952 bytes which is greater than the "
            "maximum allowed buffer size of 86586540032 bytes.",
            "job.out_of_memory",
        ),
        ("[metal::malloc] Resource limit (499000) exceeded.", "job.out_of_memory"),
        (
            f"{METAL}Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
            "job.out_of_memory",
        ),
        (
            f"{METAL}Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)",
            "job.gpu_watchdog",
        ),
        (
            f"{METAL}Impacting Interactivity "
            "(0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)",
            "job.gpu_watchdog",
        ),
    ],
)
def test_what_mlx_says_of_memory_and_the_watchdog_is_understood(
    text: str, code: str, sink: EventSink, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = last_word(sink, RuntimeError(text), tmp_path)
    assert outcome.cause is not None
    assert (outcome.outcome, outcome.cause.code) == ("failed", code)
    assert text in capsys.readouterr().err  # the worker's log has it in full


def test_what_is_not_understood_is_a_death(sink: EventSink, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no such kernel"):
        last_word(sink, RuntimeError("no such kernel"), tmp_path)


@pytest.mark.parametrize(
    ("number", "outcome", "code"),
    [
        (errno.ENOSPC, "paused", "train.disk_full"),
        (errno.EDQUOT, "paused", "train.disk_full"),
        (errno.EROFS, "paused", "train.disk_read_only"),
        (errno.EACCES, "failed", "path.unwritable"),
        (errno.EIO, "failed", "path.unwritable"),
    ],
)
def test_a_disk_that_can_be_mended_pauses_the_run_and_another_ends_it(
    number: int, outcome: str, code: str, sink: EventSink, tmp_path: Path
) -> None:
    said = last_word(sink, OSError(number, "no", "/out/state.json"), tmp_path)
    assert said.cause is not None
    assert (said.outcome, said.cause.code) == (outcome, code)


def test_an_error_of_ours_is_told_as_it_is(sink: EventSink, tmp_path: Path) -> None:
    said = last_word(sink, InvalidSetting("train.no_targets", targets="x"), tmp_path)
    assert said.cause is not None
    assert (said.outcome, said.cause.code) == ("failed", "train.no_targets")
    assert said.cause.args == {"targets": "x"}

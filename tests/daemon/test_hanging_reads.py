"""Reads that hang, as on a mount whose server is gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from safetrain_shared.errors import NoRoom
from safetrain_shared.jobs import JobState
from safetraind.storage.bounded_read import bounded
from tests.daemon.conftest import PLAY, MakeSpec
from tests.daemon.test_faults import error_of
from tests.harness import DaemonProcess

_SUBMITS = 7  # more than the threads that asyncio would have had for them


@pytest.fixture
def impatient(home: Path, tmp_path: Path) -> Iterator[DaemonProcess]:
    play = {"PLAY_READ_SECONDS": "1.5", "PLAY_DEAD": str(tmp_path / "dead")}
    process = DaemonProcess(home, PLAY, play)
    try:
        yield process.start()
    finally:
        process.end()


def test_submits_of_a_model_on_a_dead_mount_end_with_a_sentence_and_stop_returns(
    impatient: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    dead = tmp_path / "dead"
    dead.mkdir()
    for name in ("config.json", "tokenizer_config.json"):
        (dead / name).write_text("{}")
    for number in range(_SUBMITS):
        with pytest.raises(grpc.RpcError) as caught:
            impatient.submit(replace(make_spec(f"out{number}"), model=str(dead)))
        error = error_of(caught)
        assert isinstance(error, NoRoom) and error.code == "disk.hangs"
        assert str(dead) in str(error)
    job = impatient.submit(make_spec(name="pace=0", num_epochs=1)).job.id
    impatient.wait_for_state(job, JobState.SUCCEEDED)
    assert impatient.terminate(seconds=30) == 0, "threads that hang do not keep it"


def test_what_comes_too_late_is_given_back_and_an_error_is_passed_on() -> None:
    go, given_back = threading.Event(), threading.Event()

    def late(result: bool) -> None:
        assert result
        given_back.set()

    async def scenario() -> None:
        with pytest.raises(NoRoom):
            await bounded("/dead", go.wait, seconds=0.05, late=late)
        go.set()
        while not given_back.is_set():
            await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):  # its own, as of a network drive: ETIMEDOUT
            await bounded("/dead", _raise, TimeoutError(110, "timed out"))
        assert await bounded("/dead", len, "abc") == 3

    asyncio.run(scenario())


def test_a_wait_that_is_cancelled_as_the_result_comes_ends_and_gives_it_back() -> None:
    go, given_back = threading.Event(), list[bool]()

    async def scenario() -> None:
        task = asyncio.create_task(bounded("/slow", go.wait, late=given_back.append))
        await asyncio.sleep(0)  # it has begun
        [reader] = [t for t in threading.enumerate() if t.name == "bounded /slow"]
        go.set()
        reader.join()
        await asyncio.sleep(0)  # the result is there, and the task has not seen it
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert given_back == [True]

    asyncio.run(scenario())


def _raise(error: OSError) -> None:
    raise error

"""A job's curves for TensorBoard, written through its own library while the job is followed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safetrain_shared.errors import NotAllowed, Unreachable
from safetrain_shared.events import Evaluated, Event, StepDone

if TYPE_CHECKING:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

_GIB = 2**30
_FLUSH_SECONDS = 2
_NEVER = 2**63 - 1


def needed() -> None:
    """Raises Unreachable, with what to install, where TensorBoard's library is not there."""
    if importlib.util.find_spec("tensorboard") is None:
        raise Unreachable("client.tensorboard_missing")


@contextmanager
def board(folder: Path) -> Iterator[Board]:
    """A board that writes to `folder`, one run of TensorBoard's. Raises NotAllowed."""
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    try:
        writer = EventFileWriter(str(folder), flush_secs=_FLUSH_SECONDS)
        try:
            yield Board(writer)
        finally:
            writer.close()
    except OSError as error:
        raise NotAllowed("path.unwritable", path=str(folder), reason=error.strerror) from error


class Board:
    """Takes a job's events and writes its numbers: losses, rate, speed; memory in GiB."""

    def __init__(self, writer: EventFileWriter) -> None:
        self._writer = writer
        self._last: dict[type, int] = {}

    def take(self, event: Event) -> None:
        """Writes the numbers of one event; others than steps and evaluations have none."""
        body = event.body
        if not isinstance(body, StepDone | Evaluated):
            return
        if self._goes_back(body):
            self._forget_from(body.step, event.time)
        self._last[type(body)] = body.step
        self._write(body.step, event.time, _numbers(body))

    def _goes_back(self, body: StepDone | Evaluated) -> bool:
        """Whether the step ran again: after a kill, or since the job was followed before."""
        same = self._last.get(type(body), -1 if self._last else _NEVER)
        return body.step <= same or body.step < max(self._last.values(), default=0)

    def _forget_from(self, step: int, time: float) -> None:
        """TensorBoard drops what stands at `step` and behind it, in older files too."""
        from tensorboard.compat.proto.event_pb2 import Event as Record
        from tensorboard.compat.proto.event_pb2 import SessionLog

        job_to_draw = SessionLog(status=SessionLog.START)
        self._writer.add_event(Record(wall_time=time, step=step, session_log=job_to_draw))

    def _write(self, step: int, time: float, numbers: dict[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event as Record
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in numbers.items()]
        self._writer.add_event(Record(wall_time=time, step=step, summary=Summary(value=values)))


def _numbers(body: StepDone | Evaluated) -> dict[str, float]:
    if isinstance(body, Evaluated):
        return {"loss/validation": body.loss}
    return {
        "loss/training": body.loss,
        "learning_rate": body.learning_rate,
        "gradient_norm": body.grad_norm,
        "tokens_per_second": body.tokens_per_second,
        "epoch": body.epoch,
        "memory_GiB/peak": body.peak_memory / _GIB,
        "memory_GiB/footprint": body.footprint / _GIB,
    }

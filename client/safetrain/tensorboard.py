"""Writes a job's metrics as TensorBoard event files, with TensorBoard's own library."""

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


def require() -> None:
    """Raise Unreachable, which names the package, where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise Unreachable("client.tensorboard_missing")


@contextmanager
def open_writer(folder: Path) -> Iterator[MetricsWriter]:
    """Open a writer for one TensorBoard run in `folder`. Raises NotAllowed."""
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    try:
        writer = EventFileWriter(str(folder), flush_secs=_FLUSH_SECONDS)
        try:
            yield MetricsWriter(writer)
        finally:
            writer.close()
    except OSError as error:
        raise NotAllowed("path.unwritable", path=str(folder), reason=error.strerror) from error


class MetricsWriter:
    """Writes losses, learning rate, speed and memory (GiB) of a job's events."""

    def __init__(self, writer: EventFileWriter) -> None:
        self._writer = writer
        self._last: dict[type, int] = {}

    def take(self, event: Event) -> None:
        """Write the metrics of one event; only steps and evaluations have any."""
        body = event.body
        if not isinstance(body, StepDone | Evaluated):
            return
        if self._is_repeated(body):
            self._discard_from(body.step, event.time)
        self._last[type(body)] = body.step
        self._write(body.step, event.time, _numbers(body))

    def _is_repeated(self, body: StepDone | Evaluated) -> bool:
        """Whether the step was already written: it ran again after a kill, or in an older file."""
        same = self._last.get(type(body), -1 if self._last else _NEVER)
        return body.step <= same or body.step < max(self._last.values(), default=0)

    def _discard_from(self, step: int, time: float) -> None:
        """Make TensorBoard discard the points from `step` on, in older files too."""
        from tensorboard.compat.proto.event_pb2 import Event as Record
        from tensorboard.compat.proto.event_pb2 import SessionLog

        start = SessionLog(status=SessionLog.START)
        self._writer.add_event(Record(wall_time=time, step=step, session_log=start))

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

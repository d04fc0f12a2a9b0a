"""`safetrain.v1.Data`: validating and preparing training files, in ephemeral workers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from safetrain_proto.v1 import data_pb2, data_pb2_grpc
from safetrain_shared.errors import Broken
from safetrain_shared.wire import fill
from safetraind.processes.ephemeral import EphemeralWorkers
from safetraind.service.error_mapping import guarded
from safetraind.service.stream_limit import Streams
from safetraind.submission import check_absolute, checked_output
from safetraind.worker_messages.inspect_messages import INSPECT, InspectLine, InspectRequest
from safetraind.worker_messages.prepare_messages import PREPARE, PrepareLine, PrepareRequest

MOST_READERS = 8  # files being read at once, each by a worker of its own


class DataService(data_pb2_grpc.DataServicer):
    """Streams the output of the `inspect` and `prepare` workers."""

    def __init__(self, launcher: EphemeralWorkers) -> None:
        self._launcher = launcher
        self._streams = Streams(MOST_READERS)

    @guarded
    async def Validate(  # noqa: N802
        self, request: data_pb2.ValidateRequest, context: Any
    ) -> AsyncIterator[data_pb2.ValidateEvent]:
        """Stream progress, problems and a summary of each file."""
        for path in request.paths:
            check_absolute(path)
        with self._streams.one():
            async for event in self._validated(tuple(request.paths)):
                yield event

    async def _validated(self, paths: tuple[str, ...]) -> AsyncIterator[data_pb2.ValidateEvent]:
        lines: asyncio.Queue[InspectLine | None] = asyncio.Queue()
        work = asyncio.create_task(self._inspect(paths, lines))
        try:
            while (line := await lines.get()) is not None:
                event = _to_wire(line)
                if event is not None:
                    yield event
            await work
        finally:
            work.cancel()

    @guarded
    async def Prepare(  # noqa: N802
        self, request: data_pb2.PrepareRequest, context: Any
    ) -> AsyncIterator[data_pb2.PrepareEvent]:
        """Stream how each source is read, dropped rows, progress, and last the written files."""
        for path in (*request.paths, request.output):
            check_absolute(path)
        output = str(checked_output(Path(request.output)))
        work = PrepareRequest(
            files=tuple(request.paths),
            output=output,
            columns=dict(request.columns),
            valid=min(1.0, max(0.0, request.valid_share)),
            questions=min(1.0, max(0.0, request.questions_share)),
            seed=request.seed,
        )
        with self._streams.one():
            async for event in self._prepared(work, output):
                yield event

    async def _prepared(
        self, work: PrepareRequest, output: str
    ) -> AsyncIterator[data_pb2.PrepareEvent]:
        lines: asyncio.Queue[PrepareLine | None] = asyncio.Queue()
        running = asyncio.create_task(
            self._launcher.run_worker(PREPARE, work, lease=False, on_progress=lines.put_nowait)
        )
        running.add_done_callback(lambda _: lines.put_nowait(None))
        try:
            while (line := await lines.get()) is not None:
                yield _prepare_event(line)
            ended = await running
        finally:
            running.cancel()
        result = ended.result
        if result is None:
            raise Broken("daemon.broken", reason=f"prepare: {ended.how}", log=ended.log)
        prepared = data_pb2.Prepared(output=output, counts=result.counts, dropped=result.dropped)
        yield data_pb2.PrepareEvent(prepared=prepared)

    async def _inspect(
        self, paths: tuple[str, ...], lines: asyncio.Queue[InspectLine | None]
    ) -> None:
        if not paths:
            lines.put_nowait(None)
            return
        try:
            ended = await self._launcher.run_worker(
                INSPECT, InspectRequest(files=paths), lease=False, on_progress=lines.put_nowait
            )
            if ended.result is None:
                raise Broken("daemon.broken", reason=f"inspect: {ended.how}", log=ended.log)
        finally:
            lines.put_nowait(None)


def _to_wire(line: InspectLine) -> data_pb2.ValidateEvent | None:
    """Convert a worker's line; None for a kind that clients are not told."""
    event = data_pb2.ValidateEvent()
    if line.progress:
        fill(event.progress, line.progress)
    elif line.problem:
        fill(event.problem, line.problem)
    elif line.summary:
        fill(event.summary, line.summary)
    return event if event.WhichOneof("body") else None


def _prepare_event(line: PrepareLine) -> data_pb2.PrepareEvent:
    event = data_pb2.PrepareEvent()
    if line.guess:
        samples = [json.dumps(sample, ensure_ascii=False) for sample in line.guess.samples]
        guess = data_pb2.PrepareGuess(
            path=line.guess.path,
            form=line.guess.form,
            columns=line.guess.columns,
            encoding=line.guess.encoding,
            delimiter=line.guess.delimiter,
            samples=samples,
        )
        return data_pb2.PrepareEvent(guess=guess)
    if line.problem:
        fill(event.problem, line.problem)
    elif line.progress:
        fill(event.progress, line.progress)
    return event

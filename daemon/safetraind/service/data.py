"""`safetrain.v1.Data`: validates, prepares and previews training files, in ephemeral workers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from safetrain_proto.v1 import data_pb2, data_pb2_grpc
from safetrain_shared.errors import Broken, InvalidInput, InvalidSetting
from safetrain_shared.jobs import DEFAULT_MODEL
from safetrain_shared.settings import TrainingSettings
from safetrain_shared.wire import fill, settings_from_wire
from safetraind.models.registry import Models
from safetraind.preflight.job_preflight import located
from safetraind.processes.ephemeral import EphemeralWorkers
from safetraind.service.error_mapping import guarded
from safetraind.service.stream_limit import Streams
from safetraind.storage.bounded_read import bounded
from safetraind.submission import check_absolute, checked_output
from safetraind.worker_messages.inspect_messages import INSPECT, InspectLine, InspectRequest
from safetraind.worker_messages.prepare_messages import PREPARE, PrepareLine, PrepareRequest
from safetraind.worker_messages.preview_messages import PREVIEW, PreviewRequest

_HEAVIEST = 100.0  # a file's weight: so many copies of each sample
_HUB = "hf:"  # before the name of a data set of the hub
_SHOWN_SAMPLES, _MOST_SHOWN = 3, 100  # of a preview
MOST_READERS = 8  # files being read at once, each by a worker of its own


class DataService(data_pb2_grpc.DataServicer):
    """Hands on the output of the `inspect`, `prepare` and `preview` workers."""

    def __init__(self, launcher: EphemeralWorkers, models: Models) -> None:
        self._launcher = launcher
        self._models = models
        self._streams = Streams(MOST_READERS)

    @guarded
    async def Validate(  # noqa: N802
        self, request: data_pb2.ValidateRequest, context: Any
    ) -> AsyncIterator[data_pb2.ValidateEvent]:
        """Stream progress, problems and a summary of each file."""
        for path in request.paths:
            check_absolute(path)
        with self._streams.one():
            async with aclosing(self._validated(tuple(request.paths))) as events:
                async for event in events:
                    yield event

    async def _validated(
        self, paths: tuple[str, ...]
    ) -> AsyncGenerator[data_pb2.ValidateEvent, None]:
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
            if path == request.output or not path.startswith(_HUB):
                check_absolute(path)
        output = str(checked_output(Path(request.output)))
        work = PrepareRequest(
            files=tuple(request.paths),
            weights=_weights(request),
            output=output,
            columns=dict(request.columns),
            valid=min(1.0, max(0.0, request.valid_share)),
            questions=min(1.0, max(0.0, request.questions_share)),
            seed=request.seed,
        )
        with self._streams.one():
            async with aclosing(self._prepared(work, output)) as events:
                async for event in events:
                    yield event

    async def _prepared(
        self, work: PrepareRequest, output: str
    ) -> AsyncGenerator[data_pb2.PrepareEvent, None]:
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

    @guarded
    async def Preview(  # noqa: N802
        self, request: data_pb2.PreviewRequest, context: Any
    ) -> data_pb2.PreviewResponse:
        """Return the first samples of a file as the model sees them. Raises InvalidInput where the
        worker exceeds its limits, Broken where it dies.
        """
        check_absolute(request.path)
        model = request.model or DEFAULT_MODEL
        source = await bounded(model, self._models.resolve, model)
        folder = await bounded(model, located, source)
        settings = TrainingSettings().with_overrides(settings_from_wire(request.settings))
        work = PreviewRequest(
            path=request.path,
            model=str(folder or source.path),
            hub=folder is None,
            samples=min(max(0, request.samples) or _SHOWN_SAMPLES, _MOST_SHOWN),
            length=max(0, request.max_seq_length),
            mask_prompt=settings.mask_prompt,
            thinking=settings.thinking,
            trust_remote_code=request.trust_remote_code,
        )
        with self._streams.one():
            ended = await self._launcher.run_worker(PREVIEW, work, lease=False)
        if ended.limit:
            raise InvalidInput(f"data.inspection_{ended.limit}")
        if (result := ended.result) is None:
            raise Broken("daemon.broken", reason=f"preview: {ended.how}", log=ended.log)
        response = data_pb2.PreviewResponse(path=request.path)
        fill(response, result)
        return response

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
    """Convert a worker's line; None for a kind that is not sent to clients."""
    event = data_pb2.ValidateEvent()
    if line.progress:
        fill(event.progress, line.progress)
    elif line.problem:
        fill(event.problem, line.problem)
    elif line.summary:
        fill(event.summary, line.summary)
    return event if event.WhichOneof("body") else None


def _weights(request: data_pb2.PrepareRequest) -> tuple[float, ...]:
    """Return the weight of each file. Raises InvalidSetting for a text that is no weight."""
    if request.weights and len(request.weights) != len(request.paths):
        raise InvalidSetting("prepare.weight", weight="-", most=_HEAVIEST)
    for weight in request.weights:
        if not 0 < weight <= _HEAVIEST:
            raise InvalidSetting("prepare.weight", weight=weight, most=_HEAVIEST)
    return tuple(request.weights)


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

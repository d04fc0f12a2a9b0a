"""`safetrain.v1.Data`: validates, prepares and previews training files, in ephemeral workers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from safetrain_proto.v1 import data_pb2, data_pb2_grpc
from safetrain_shared.codec import from_plain
from safetrain_shared.errors import Broken, InvalidInput, InvalidSetting, error_from_dict
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import DEFAULT_MODEL
from safetrain_shared.settings import TrainingSettings
from safetrain_shared.wire import finding_to_wire, settings_from_wire
from safetraind.models.registry import Models
from safetraind.preflight.job_preflight import located
from safetraind.processes.ephemeral import EphemeralWorkers
from safetraind.service.error_mapping import guarded
from safetraind.service.stream_limit import Streams
from safetraind.storage.bounded_read import bounded
from safetraind.submission import check_absolute, checked_output

Line = Mapping[str, Any]
_HEAVIEST = 100.0  # a file's weight: so many copies of each sample
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
            async for event in self._validated(list(request.paths)):
                yield event

    async def _validated(self, paths: list[str]) -> AsyncIterator[data_pb2.ValidateEvent]:
        lines: asyncio.Queue[Line | None] = asyncio.Queue()
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
        work = {
            "files": list(request.paths),
            "weights": _weights(request),
            "output": output,
            "map": dict(request.columns),
            "valid": min(1.0, max(0.0, request.valid_share)),
            "questions": min(1.0, max(0.0, request.questions_share)),
            "seed": request.seed,
        }
        with self._streams.one():
            async for event in self._prepared(work, output):
                yield event

    async def _prepared(
        self, work: Mapping[str, Any], output: str
    ) -> AsyncIterator[data_pb2.PrepareEvent]:
        lines: asyncio.Queue[Line | None] = asyncio.Queue()
        running = asyncio.create_task(
            self._launcher.run_worker("prepare", work, lease=False, on_progress=lines.put_nowait)
        )
        running.add_done_callback(lambda _: lines.put_nowait(None))
        try:
            while (line := await lines.get()) is not None:
                yield _prepare_event(line)
            ended = await running
        finally:
            running.cancel()
        if ended.result is None:
            raise Broken("daemon.broken", reason=f"prepare: {dict(ended.exit)}", log=ended.log)
        if "error" in ended.result:
            raise error_from_dict(ended.result["error"])
        counts, dropped = ended.result["counts"], ended.result["dropped"]
        prepared = data_pb2.Prepared(output=output, counts=counts, dropped=dropped)
        yield data_pb2.PrepareEvent(prepared=prepared)

    @guarded
    async def Preview(  # noqa: N802
        self, request: data_pb2.PreviewRequest, context: Any
    ) -> data_pb2.PreviewResponse:
        """Return the first samples of a file as the model sees them."""
        check_absolute(request.path)
        model = request.model or DEFAULT_MODEL
        source = await bounded(model, self._models.resolve, model)
        folder = await bounded(model, located, source)
        settings = TrainingSettings().with_overrides(settings_from_wire(request.settings))
        work = {
            "path": request.path,
            "model": str(folder or source.path),
            "hub": folder is None,
            "samples": min(max(0, request.samples) or _SHOWN_SAMPLES, _MOST_SHOWN),
            "length": max(0, request.max_seq_length),
            "mask_prompt": settings.mask_prompt,
            "thinking": settings.thinking,
            "trust_remote_code": request.trust_remote_code,
        }
        with self._streams.one():
            ended = await self._launcher.run_worker("preview", work, lease=False)
        if ended.limit:
            raise InvalidInput(f"data.inspection_{ended.limit}")
        if ended.result is None:
            raise Broken("daemon.broken", reason=f"preview: {dict(ended.exit)}", log=ended.log)
        if "error" in ended.result:
            raise error_from_dict(ended.result["error"])
        return preview_to_wire(request.path, ended.result)

    async def _inspect(self, paths: list[str], lines: asyncio.Queue[Line | None]) -> None:
        try:
            ended = await self._launcher.run_worker(
                "inspect", {"files": paths}, lease=False, on_progress=lines.put_nowait
            )
            if ended.result is None:
                raise Broken("daemon.broken", reason=f"inspect: {dict(ended.exit)}", log=ended.log)
        finally:
            lines.put_nowait(None)


def _to_wire(line: Line) -> data_pb2.ValidateEvent | None:
    """Convert a worker's line; None for its last line, and for unknown kinds of line."""
    if "progress" in line:
        return data_pb2.ValidateEvent(progress=data_pb2.ValidateProgress(**line["progress"]))
    if "problem" in line:
        problem = from_plain(line["problem"], Finding)
        return data_pb2.ValidateEvent(problem=finding_to_wire(problem))
    if "summary" in line:
        return data_pb2.ValidateEvent(summary=data_pb2.FileSummary(**line["summary"]))
    return None


def _weights(request: data_pb2.PrepareRequest) -> list[float]:
    """The weight of each file. Raises InvalidSetting for what is none."""
    if request.weights and len(request.weights) != len(request.paths):
        raise InvalidSetting("prepare.weight", weight="-", most=_HEAVIEST)
    for weight in request.weights:
        if not 0 < weight <= _HEAVIEST:
            raise InvalidSetting("prepare.weight", weight=weight, most=_HEAVIEST)
    return list(request.weights)


def preview_to_wire(path: str, result: Line) -> data_pb2.PreviewResponse:
    """The worker's result as a message."""
    samples = [
        data_pb2.PreviewSample(
            line=sample["line"],
            pieces=[data_pb2.PreviewPiece(**piece) for piece in sample["pieces"]],
            tokens=sample["tokens"],
            learned=sample["learned"],
            problems=[finding_to_wire(from_plain(p, Finding)) for p in sample["problems"]],
        )
        for sample in result["samples"]
    ]
    counts = {name: count for name, count in result.items() if name != "samples"}
    return data_pb2.PreviewResponse(path=path, samples=samples, **counts)


def _prepare_event(line: Line) -> data_pb2.PrepareEvent:
    if "guess" in line:
        samples = [json.dumps(sample, ensure_ascii=False) for sample in line["guess"]["samples"]]
        guess = data_pb2.PrepareGuess(**{**line["guess"], "samples": samples})
        return data_pb2.PrepareEvent(guess=guess)
    if "problem" in line:
        problem = finding_to_wire(from_plain(line["problem"], Finding))
        return data_pb2.PrepareEvent(problem=problem)
    return data_pb2.PrepareEvent(progress=data_pb2.PrepareProgress(**line["progress"]))

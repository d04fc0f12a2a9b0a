"""`safetrain.v1.Files`: files from clients on other machines, and a job's results for them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from safetrain_proto.v1 import files_pb2, files_pb2_grpc
from safetrain_shared.errors import Busy, InvalidInput, NotFound
from safetraind.controller.controller import Controller
from safetraind.service.error_mapping import check_understood, guarded
from safetraind.storage import output_folder, training_state
from safetraind.storage.bounded_read import SLOW_SECONDS, bounded
from safetraind.storage.manifest import sha256
from safetraind.storage.uploads import Receiving, Upload, gather, read_from, receiving, upload

_MOST_GATHERED = 1000  # files of a folder
_LISTINGS = 5  # of results that are replaced meanwhile
_SLOWEST_DISK = 50e6  # bytes a second, at which a whole file is read to check its hash


class FilesService(files_pb2_grpc.FilesServicer):
    """Uploads lie in the home, by their hash; results are read in the job's output folder."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._busy: set[str] = set()  # hashes that a client is sending

    @guarded
    async def Look(self, request: files_pb2.Offer, context: Any) -> files_pb2.Held:  # noqa: N802
        """Return the number of bytes received of a file; all, where it has another name there."""
        wanted = self._upload(request)
        wanted.adopt()
        return _held(wanted)

    @guarded
    async def Put(  # noqa: N802
        self, requests: AsyncIterator[files_pb2.PutRequest], context: Any
    ) -> files_pb2.PutResponse:
        """Append the pieces of a file. After a broken stream the part stays, and the next call
        continues it.

        Raises InvalidInput for a stream without an offer, Busy where another client sends the same
        file.
        """
        first = await anext(aiter(requests), None)
        check_understood(first)
        if first is None or not first.HasField("offer"):
            raise InvalidInput("request.malformed", reason="offer")
        wanted = self._upload(first.offer)
        if wanted.is_whole:
            return files_pb2.PutResponse(held=_held(wanted))
        if wanted.sha256 in self._busy:
            raise Busy("files.busy", name=wanted.name)
        self._busy.add(wanted.sha256)
        try:
            with receiving(self._controller.home, wanted) as received:
                await _receive(wanted, received, requests)
        finally:
            self._busy.discard(wanted.sha256)
        return files_pb2.PutResponse(held=_held(wanted))

    @guarded
    async def Gather(  # noqa: N802
        self, request: files_pb2.GatherRequest, context: Any
    ) -> files_pb2.GatherResponse:
        """Make a folder of files that were sent."""
        if len(request.files) > _MOST_GATHERED:
            raise InvalidInput("request.malformed", reason="files")
        uploads = [self._upload(offer) for offer in request.files]
        path = await bounded(request.name, gather, self._controller.home, request.name, uploads)
        return files_pb2.GatherResponse(path=str(path))

    @guarded
    async def List(  # noqa: N802
        self, request: files_pb2.JobFilesRequest, context: Any
    ) -> files_pb2.JobFiles:
        """List the job's results, with their hashes."""
        output = self._output(request.job_id)
        found = await bounded(output, self._results, request.job_id, output, seconds=SLOW_SECONDS)
        return files_pb2.JobFiles(files=found)

    @guarded
    async def Get(  # noqa: N802
        self, request: files_pb2.GetRequest, context: Any
    ) -> AsyncIterator[files_pb2.Chunk]:
        """Send one of the job's results."""
        output = self._output(request.job_id)
        path = await bounded(output, self._result, request.job_id, output, request.name)
        pieces = read_from(path, max(0, request.offset))
        while (data := await bounded(path, next, pieces, None)) is not None:
            yield files_pb2.Chunk(data=data)

    def _upload(self, offer: files_pb2.Offer) -> Upload:
        return upload(self._controller.home, offer.sha256, offer.size, offer.name)

    def _output(self, job_id: int) -> Path:
        """Return the job's output folder. Raises NotFound."""
        return Path(self._controller.record(job_id).output)

    def _results(self, job_id: int, output: Path) -> list[files_pb2.JobFile]:
        """Return the job's results with their hashes. Where the training replaces one meanwhile,
        all are listed anew.
        """
        for _ in range(_LISTINGS):
            with contextlib.suppress(FileNotFoundError):
                return self._listed(job_id, output)
        return self._listed(job_id, output)

    def _listed(self, job_id: int, output: Path) -> list[files_pb2.JobFile]:
        return [
            files_pb2.JobFile(
                name=path.relative_to(output).as_posix(),
                size=path.stat().st_size,
                sha256=sha256(path),
            )
            for path in self._paths(job_id, output)
        ]

    def _result(self, job_id: int, output: Path, name: str) -> Path:
        for path in self._paths(job_id, output):
            if path.relative_to(output).as_posix() == name:
                return path
        raise NotFound("files.none", id=job_id, name=name)

    def _paths(self, job_id: int, output: Path) -> list[Path]:
        """Return the job's results; empty where the folder now holds another training."""
        state = training_state.read(output)
        if state is not None and not state.belongs_to(job_id, self._controller.home.root):
            return []
        return output_folder.results(output)


async def _receive(
    wanted: Upload, received: Receiving, requests: AsyncIterator[files_pb2.PutRequest]
) -> None:
    async for request in requests:
        check_understood(request)
        await bounded(wanted.path, received.append, request.data)
    seconds = SLOW_SECONDS + wanted.size / _SLOWEST_DISK
    await bounded(wanted.path, received.finish, seconds=seconds)


def _held(wanted: Upload) -> files_pb2.Held:
    return files_pb2.Held(path=str(wanted.path) if wanted.is_whole else "", bytes=wanted.held)

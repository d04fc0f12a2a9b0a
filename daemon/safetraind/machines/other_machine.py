"""Another machine's daemon, as the daemon that leads a training speaks with it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import grpc

from safetrain_proto.v1.control_pb2 import InfoRequest
from safetrain_proto.v1.control_pb2_grpc import ControlStub
from safetrain_proto.v1.files_pb2 import Offer, PutRequest
from safetrain_proto.v1.files_pb2_grpc import FilesStub
from safetrain_proto.v1.machines_pb2 import RankFitness, RankTerms
from safetrain_proto.v1.machines_pb2_grpc import MachinesStub
from safetrain_shared.errors import Incompatible, SafetrainError, Unreachable
from safetrain_shared.messages import sentence
from safetrain_shared.paths import socket_target
from safetrain_shared.remote.host_list import Host
from safetrain_shared.remote.tunnel import Tunnel
from safetrain_shared.wire import STATUS_DETAILS, error_from_wire
from safetraind.storage.bounded_read import SLOW_SECONDS, bounded
from safetraind.storage.job_document import DataFile

log = logging.getLogger(__name__)

ANSWER_SECONDS = 20.0
_CHECK_SECONDS = 120.0
_PIECE_BYTES = 512 << 10  # a daemon takes requests of at most 1 MiB


class OtherMachine:
    """A connection to the daemon of a host, through the user's ssh."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._tunnel = Tunnel(host, log.info)
        self._channel: Any = None  # of grpc.aio, once it is open

    @property
    def machines(self) -> Any:
        """The calls on ranks."""
        return MachinesStub(self._channel)

    async def open(self) -> None:
        """Connect, starting a daemon there if need be. Raises Unreachable, Incompatible."""
        await self._tunnelled(self._tunnel.ensure)
        if not await self._answers():  # the way leads to a daemon that has ended meanwhile
            await self.close()
            await self._tunnelled(self._tunnel.open)
            if not await self._answers():
                raise Unreachable("machines.unreachable", machine=self.host.name, reason="gRPC")

    async def close(self) -> None:
        """Close the connection. ssh keeps the way open for a while."""
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None

    async def check(self, terms: RankTerms) -> RankFitness:
        """Return what a rank could have there; raise what speaks against it."""
        with self.errors():
            fitness: RankFitness = await self.machines.Check(terms, timeout=_CHECK_SECONDS)
            return fitness

    async def send(self, file: DataFile) -> None:
        """Send a file of the training, unless it is there by its hash."""
        files, path = FilesStub(self._channel), Path(file.path)
        offer = Offer(sha256=file.sha256, size=file.bytes, name=path.name)
        with self.errors():
            held = await files.Look(offer, timeout=ANSWER_SECONDS)
            if not held.path:
                start = min(max(0, held.bytes), file.bytes)
                await files.Put(_put_requests(path, offer, start))

    @contextlib.contextmanager
    def errors(self) -> Any:
        """Raise the errors of a call as the daemon's own, with this machine's name in them."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise self.explained(error) from error

    def explained(self, error: grpc.aio.AioRpcError) -> SafetrainError:
        """Return the error for a failed call."""
        name, metadata = self.host.name, cast(Any, error.trailing_metadata() or ())
        for key, value in metadata:
            theirs = error_from_wire(value) if key == STATUS_DETAILS else None
            if theirs is None:
                continue
            if "machine" in theirs.args_by_name:
                return type(theirs)(theirs.code, **{**theirs.args_by_name, "machine": name})
            said = sentence(theirs.code, theirs.args_by_name)
            return type(theirs)("machines.refused", machine=name, sentence=said)
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return Incompatible("machines.older", machine=name)
        reason = f"{error.code().name}: {error.details()}"[:200]
        return Unreachable("machines.unreachable", machine=name, reason=reason)

    async def _tunnelled(self, act: Any) -> None:
        """Run ssh, in a thread. Raises what the tunnel raises, by one code where it may pass."""
        name = self.host.name
        try:
            await bounded(name, partial(act, autostart=True), seconds=SLOW_SECONDS)
        except SafetrainError as error:
            if isinstance(error, Unreachable) and error.code != "host.not_installed":
                reason = str(error.args_by_name.get("reason", error.code))
                raise Unreachable("machines.unreachable", machine=name, reason=reason) from error
            raise

    async def _answers(self) -> bool:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(socket_target(self._tunnel.home.socket))
        try:
            await ControlStub(self._channel).Info(InfoRequest(), timeout=ANSWER_SECONDS)
        except grpc.aio.AioRpcError as error:
            log.info("%s: %s", self.host.name, error.code())
            return False
        return True


async def _put_requests(path: Path, offer: Offer, start: int) -> AsyncIterator[PutRequest]:
    """Yield the offer, then the file from `start` on."""
    yield PutRequest(offer=offer)
    with path.open("rb") as source:
        source.seek(start)
        while data := await bounded(path, source.read, _PIECE_BYTES):
            yield PutRequest(data=data)

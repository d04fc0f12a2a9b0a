"""A connection to the daemon: typed calls and streams whose errors come out as SafetrainError."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from safetrain.autostart import Say, ensure, wait
from safetrain_shared import paths
from safetrain_shared.errors import Broken, Incompatible, InvalidInput, SafetrainError, Unreachable
from safetrain_shared.paths import Home, socket_target

if TYPE_CHECKING:
    from safetrain_proto.v1.answers_pb2_grpc import AnswersStub
    from safetrain_proto.v1.control_pb2_grpc import ControlStub
    from safetrain_proto.v1.data_pb2_grpc import DataStub
    from safetrain_proto.v1.diagnosis_pb2_grpc import DiagnosisStub
    from safetrain_proto.v1.evaluations_pb2_grpc import EvaluationsStub
    from safetrain_proto.v1.events_pb2_grpc import EventsStub
    from safetrain_proto.v1.exports_pb2_grpc import ExportsStub
    from safetrain_proto.v1.jobs_pb2_grpc import JobsStub
    from safetrain_proto.v1.models_pb2_grpc import ModelsStub
    from safetrain_proto.v1.preflight_pb2_grpc import PreflightStub

CALL_SECONDS = 30.0
RETURN_SECONDS = 3.0  # how long a daemon that was killed may stay away before we start one
RESTART_SECONDS = 15.0  # how long one that said goodbye may take to be back
_BREATH_SECONDS = 0.1  # a daemon that is stopping may still accept: no hot loop
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.initial_reconnect_backoff_ms", 50),
    # No pause, whatever its name: how long one attempt may take. A daemon that had no processor
    # for a moment is not one that went away.
    ("grpc.min_reconnect_backoff_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 500),
)

Request = TypeVar("Request")
Response = TypeVar("Response")


def _silent(text: str) -> None:
    del text


class Daemon:
    """The daemon of a home, started where none runs and `autostart` allows it.

    `say` is given what the user should know meanwhile, such as that a daemon is being started.
    `lang`: the language of the errors it raises; None: the language in use. Raises Unreachable or
    NotAllowed where there is no daemon to trust.
    """

    def __init__(
        self,
        home: Home | None = None,
        *,
        autostart: bool = True,
        say: Say = _silent,
        lang: str | None = None,
    ) -> None:
        self.home = home or paths.home()
        self.say = say
        self.lang = lang
        self._autostart = autostart
        with self.language():
            ensure(self.home, autostart=autostart, say=say)
        self._channel = grpc.insecure_channel(socket_target(self.home.socket), options=_OPTIONS)

    def __enter__(self) -> Daemon:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; the daemon and its jobs go on."""
        self._channel.close()

    @contextmanager
    def language(self) -> Iterator[None]:
        """Errors raised inside the block speak this connection's language."""
        try:
            yield
        except SafetrainError as error:
            error.lang = self.lang
            raise

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        seconds: float = CALL_SECONDS,
        again: bool = False,
    ) -> Response:
        """One answer to one request, or a SafetrainError.

        `again`: the request is harmless twice, so it is sent anew to a daemon that comes back.
        """
        try:
            return method(request, timeout=seconds)
        except grpc.RpcError as error:
            failure = self._error_of(error, seconds, method)
            if not (again and connection_lost(failure)):
                raise failure from None
        self.recover(failure)
        try:
            return method(request, timeout=seconds, wait_for_ready=True)
        except grpc.RpcError as error:
            raise self._error_of(error, seconds, method) from None

    def stream(
        self,
        method: grpc.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        *,
        seconds: float | None = None,
    ) -> Generator[Response, None, None]:
        """The answers to one request as they come. Closing the iterator ends the call.

        `seconds`: after which it is given up, with Unreachable.
        """
        call = method(request, timeout=seconds)
        try:
            yield from call
        except grpc.RpcError as error:
            raise self._error_of(error, seconds or 0.0, method) from None
        finally:
            call.cancel()  # type: ignore[no-untyped-call]

    def recover(self, failure: SafetrainError) -> None:
        """Waits for a daemon that went away to come back, else starts one.

        One that somebody stopped on purpose is not started. Raises Unreachable.
        """
        time.sleep(_BREATH_SECONDS)
        stopped = failure.code == "daemon.stopping"
        if not wait(self.home, RESTART_SECONDS if stopped else RETURN_SECONDS):
            with self.language():
                ensure(self.home, autostart=self._autostart and not stopped, say=self.say)

    def _error_of(self, error: Any, seconds: float, method: Any) -> SafetrainError:
        found = error_of(error, self.home, seconds)
        if found.code == "daemon.incompatible":
            found = self._incompatible(method)
        found.lang = self.lang
        return found

    def _incompatible(self, method: Any) -> Incompatible:
        """Why the daemon does not take the call `method`, and what to do, by what it does take."""
        from safetrain.compatibility import explained
        from safetrain_proto.v1.control_pb2 import InfoRequest, InfoResponse

        try:
            info = self.control.Info(InfoRequest(), timeout=CALL_SECONDS)
        except grpc.RpcError:
            info = InfoResponse()  # a daemon that is older than Info, or gone
        return explained(method, info)

    # Each service is loaded with its first call: a command needs one or two of them.

    @cached_property
    def jobs(self) -> JobsStub:
        """Submit, look at, control."""
        from safetrain_proto.v1.jobs_pb2_grpc import JobsStub

        return JobsStub(self._channel)

    @cached_property
    def events(self) -> EventsStub:
        """A job's story."""
        from safetrain_proto.v1.events_pb2_grpc import EventsStub

        return EventsStub(self._channel)

    @cached_property
    def preflight(self) -> PreflightStub:
        """Will it crash, and which settings."""
        from safetrain_proto.v1.preflight_pb2_grpc import PreflightStub

        return PreflightStub(self._channel)

    @cached_property
    def answers(self) -> AnswersStub:
        """Questions to a model."""
        from safetrain_proto.v1.answers_pb2_grpc import AnswersStub

        return AnswersStub(self._channel)

    @cached_property
    def diagnosis(self) -> DiagnosisStub:
        """What troubles a training."""
        from safetrain_proto.v1.diagnosis_pb2_grpc import DiagnosisStub

        return DiagnosisStub(self._channel)

    @cached_property
    def evaluations(self) -> EvaluationsStub:
        """Base and adapter compared on questions."""
        from safetrain_proto.v1.evaluations_pb2_grpc import EvaluationsStub

        return EvaluationsStub(self._channel)

    @cached_property
    def exports(self) -> ExportsStub:
        """Adapters fused into models."""
        from safetrain_proto.v1.exports_pb2_grpc import ExportsStub

        return ExportsStub(self._channel)

    @cached_property
    def data(self) -> DataStub:
        """Training files."""
        from safetrain_proto.v1.data_pb2_grpc import DataStub

        return DataStub(self._channel)

    @cached_property
    def models(self) -> ModelsStub:
        """Models kept under the home."""
        from safetrain_proto.v1.models_pb2_grpc import ModelsStub

        return ModelsStub(self._channel)

    @cached_property
    def control(self) -> ControlStub:
        """The daemon itself."""
        from safetrain_proto.v1.control_pb2_grpc import ControlStub

        return ControlStub(self._channel)


def error_of(error: Any, home: Home, seconds: float = 0.0) -> SafetrainError:
    """The error behind a failed call: the daemon's own, else what its status code tells."""
    from safetrain_shared.wire import STATUS_DETAILS, error_from_wire

    for key, value in error.trailing_metadata() or ():
        ours = error_from_wire(value) if key == STATUS_DETAILS else None
        if ours is not None:
            return ours
    code, details = error.code(), error.details() or ""
    log = str(home.log)
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unreachable("daemon.unreachable", socket=str(home.socket))
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unreachable("daemon.silent", seconds=seconds, log=log)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Incompatible("daemon.incompatible", feature=details)
    too_large = re.search(r"\((\d+) vs\. (\d+)\)", details)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and too_large:
        size, limit = map(int, too_large.groups())
        return InvalidInput("message.too_large", size=size, limit=limit)
    return Broken("daemon.broken", reason=f"{code.name}: {details}", log=log)


def connection_lost(error: SafetrainError) -> bool:
    """Whether the connection was lost, rather than the request refused."""
    return error.code in ("daemon.unreachable", "daemon.stopping")

"""A connection to the daemon: typed calls and streams that raise SafetrainError."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from safetrain.autostart import ensure
from safetrain_shared import paths
from safetrain_shared.daemon_socket import Notify, wait
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
    from safetrain_proto.v1.files_pb2_grpc import FilesStub
    from safetrain_proto.v1.jobs_pb2_grpc import JobsStub
    from safetrain_proto.v1.models_pb2_grpc import ModelsStub
    from safetrain_proto.v1.preflight_pb2_grpc import PreflightStub
    from safetrain_shared.remote.tunnel import Tunnel

CALL_SECONDS = 30.0
RETURN_SECONDS = 3.0  # wait for a killed daemon to come back, before one is started
RESTART_SECONDS = 15.0  # wait for a daemon that was stopped in order, such as for an upgrade
HOST_PATIENCE_SECONDS = 3600.0  # a host that was reached and is out of reach is tried so long
_HOST_PAUSE_SECONDS = 2.0  # between two such attempts
_READY_SECONDS = 5.0
_RETRY_SECONDS = 0.1  # pause before reconnecting: a stopping daemon may still accept
CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.initial_reconnect_backoff_ms", 50),
    # The time limit of one connection attempt, despite its name; generous for a busy machine.
    ("grpc.min_reconnect_backoff_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 500),
)

_SERVICES = (
    *("answers", "control", "data", "diagnosis", "evaluations", "events", "exports", "files"),
    *("jobs", "models", "preflight"),
)

Request = TypeVar("Request")
Response = TypeVar("Response")


class _NobodyThere(Exception):
    """A call that did not leave: no daemon took the connection."""

    def __init__(self, failure: SafetrainError) -> None:
        super().__init__(failure)
        self.failure = failure


def _never_left(error: Any) -> bool:
    """Whether gRPC had no connection for the call, rather than lost one."""
    unavailable = error.code() is grpc.StatusCode.UNAVAILABLE
    return unavailable and str(error.details()).startswith("failed to connect")


def _ignore(text: str) -> None:
    del text


class Daemon:
    """The daemon of a home, started where none runs and `autostart` allows it.

    `notify` is called with sentences for the user, such as that a daemon is being started. `lang`:
    the language of the errors raised; None: the language in use. `host`: another machine, by its
    name in `safetrain hosts` or in ssh, in place of `home`. Raises Unreachable where no daemon
    answers, NotAllowed where the socket belongs to another user.
    """

    def __init__(
        self,
        home: Home | None = None,
        *,
        autostart: bool = True,
        notify: Notify = _ignore,
        lang: str | None = None,
        host: str = "",
    ) -> None:
        self.notify = notify
        self.lang = lang
        self._autostart = autostart
        self._tunnel: Tunnel | None = None
        with self.language():
            if host:
                self._tunnel = _tunnel(host, notify)
                self.home = self._tunnel.home
                self._tunnel.ensure(autostart=autostart)
            else:
                self.home = home or paths.home()
                ensure(self.home, autostart=autostart, notify=notify)
        self._channel = grpc.insecure_channel(
            socket_target(self.home.socket), options=CHANNEL_OPTIONS
        )

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the daemon and its jobs go on."""
        self._channel.close()

    @property
    def host(self) -> str:
        """The name of the other machine; empty for this one."""
        return self._tunnel.host.name if self._tunnel is not None else ""

    @property
    def remote_folder(self) -> str:
        """The user's home folder on the host; empty for this machine. Raises Unreachable."""
        if self._tunnel is None:
            return ""
        return self._tunnel.folder(autostart=self._autostart)

    @contextmanager
    def language(self) -> Iterator[None]:
        """Set this connection's language on errors raised inside the block."""
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
        """Call a unary method and return its response. Raises SafetrainError.

        `again`: the request is idempotent and is repeated once the connection is restored.
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
        """Yield the responses of a streaming method. Closing the iterator cancels the call.

        `seconds`: the deadline, after which Unreachable is raised. A call that found nobody behind
        the tunnel to another machine is made again once there is somebody.
        """
        try:
            yield from self._streamed(method, request, seconds)
            return
        except _NobodyThere as nobody:
            failure = nobody.failure
        self.recover(failure)
        try:
            yield from self._streamed(method, request, seconds)
        except _NobodyThere as nobody:
            raise nobody.failure from None

    def _streamed(
        self,
        method: grpc.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        seconds: float | None,
    ) -> Generator[Response, None, None]:
        call = method(request, timeout=seconds)
        try:
            yield from call
        except grpc.RpcError as error:
            failure = self._error_of(error, seconds or 0.0, method)
            if self.host and _never_left(error):
                raise _NobodyThere(failure) from None
            raise failure from None
        finally:
            call.cancel()  # type: ignore[no-untyped-call]

    def send(
        self,
        method: grpc.StreamUnaryMultiCallable[Request, Response],
        requests: Iterator[Request],
    ) -> Response:
        """Call a method that takes a stream of requests and return its response.

        Without a deadline: a large file on a slow link takes as long as it takes. Raises
        SafetrainError.
        """
        try:
            return method(requests)
        except grpc.RpcError as error:
            raise self._error_of(error, 0.0, method) from None

    def recover(self, failure: SafetrainError) -> None:
        """Wait for a daemon that went away, else start one.

        A daemon that was stopped on purpose is not started. Another machine that is out of reach,
        as after a laptop slept, is tried again for an hour. Raises Unreachable.
        """
        time.sleep(_RETRY_SECONDS)
        stopped = failure.code == "daemon.stopping"
        if self._tunnel is not None:
            with self.language():
                self._reopen(self._tunnel, autostart=self._autostart and not stopped)
            # Until gRPC has connected again, it refuses calls at once for the last failure.
            with suppress(grpc.FutureTimeoutError):
                grpc.channel_ready_future(self._channel).result(_READY_SECONDS)
        elif not wait(self.home, RESTART_SECONDS if stopped else RETURN_SECONDS):
            with self.language():
                autostart = self._autostart and not stopped
                ensure(self.home, autostart=autostart, notify=self.notify)

    def _reopen(self, tunnel: Tunnel, *, autostart: bool) -> None:
        from safetrain_shared.messages import sentence

        self.notify(sentence("host.lost", {"host": self.host}))
        deadline = time.monotonic() + HOST_PATIENCE_SECONDS
        while True:
            try:
                return tunnel.open(autostart=autostart)
            except Unreachable as error:
                if error.code != "host.unreachable" or time.monotonic() > deadline:
                    raise
            time.sleep(_HOST_PAUSE_SECONDS)

    def _error_of(self, error: Any, seconds: float, method: Any) -> SafetrainError:
        found = error_of(error, self.home, seconds)
        if found.code == "daemon.incompatible":
            found = self._incompatible(method)
        elif found.code == "daemon.unreachable" and self.host:
            found = Unreachable("host.lost", host=self.host)
        found.lang = self.lang
        return found

    def _incompatible(self, method: Any) -> Incompatible:
        """Return the error for a method that the daemon does not offer: which side is outdated."""
        from safetrain.compatibility import explained, feature_of
        from safetrain_proto.v1.control_pb2 import InfoRequest, InfoResponse

        try:
            info = self.control.Info(InfoRequest(), timeout=CALL_SECONDS)
        except grpc.RpcError:
            info = InfoResponse()  # no Info call: an older daemon, or none
        if self._tunnel is None:
            return explained(method, info)
        from safetrain_shared.remote.installing import not_taken

        return not_taken(self._tunnel.host, feature_of(method), info)

    if TYPE_CHECKING:
        answers: AnswersStub
        control: ControlStub
        data: DataStub
        diagnosis: DiagnosisStub
        evaluations: EvaluationsStub
        events: EventsStub
        exports: ExportsStub
        files: FilesStub
        jobs: JobsStub
        models: ModelsStub
        preflight: PreflightStub
    else:

        def __getattr__(self, name: str) -> Any:
            """Import the stub of the service `name` at its first use; a command needs few."""
            if name not in _SERVICES:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            module = importlib.import_module(f"safetrain_proto.v1.{name}_pb2_grpc")
            stub = getattr(module, f"{name.capitalize()}Stub")(self._channel)
            setattr(self, name, stub)
            return stub


def _tunnel(host: str, notify: Notify) -> Tunnel:
    from safetrain_shared.remote.host_list import find
    from safetrain_shared.remote.tunnel import Tunnel

    return Tunnel(find(host), notify)


def error_of(error: Any, home: Home, seconds: float = 0.0) -> SafetrainError:
    """Return the daemon's own error for a failed call, else one for its gRPC status code."""
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
    return error.code in ("daemon.unreachable", "daemon.stopping", "host.lost")

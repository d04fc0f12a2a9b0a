"""The daemon's object graph and life cycle: lock the home, open, serve, stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import resource
import signal
import socket
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health  # type: ignore[attr-defined]

from safetrain_proto.v1 import (
    answers_pb2,
    answers_pb2_grpc,
    control_pb2,
    control_pb2_grpc,
    data_pb2,
    data_pb2_grpc,
    diagnosis_pb2,
    diagnosis_pb2_grpc,
    evaluations_pb2,
    evaluations_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    exports_pb2,
    exports_pb2_grpc,
    files_pb2,
    files_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    machines_pb2,
    machines_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    preflight_pb2,
    preflight_pb2_grpc,
)
from safetrain_shared.errors import Busy, NotAllowed, NotFound, SafetrainError
from safetrain_shared.paths import Home, private, socket_target
from safetrain_shared.printable import printable
from safetraind.controller.controller import Controller
from safetraind.controller.job_check import Checker
from safetraind.models.registry import Models
from safetraind.preflight.job_preflight import Planning
from safetraind.processes.ephemeral import EphemeralWorkers
from safetraind.processes.home_watch import (
    HomeLock,
    HomeWatch,
    Identity,
    Loss,
    identity,
    write_pid,
)
from safetraind.processes.inference_server import InferenceServer
from safetraind.processes.lease import Lease
from safetraind.processes.locks import try_lock
from safetraind.processes.supervisor import Supervisor
from safetraind.service import reflection_v1
from safetraind.service.answers import AnswersService
from safetraind.service.control import ControlService
from safetraind.service.data import DataService
from safetraind.service.diagnosis import DiagnosisService
from safetraind.service.error_mapping import UnderstoodRequests
from safetraind.service.evaluations import EvaluationsService
from safetraind.service.events import EventsService
from safetraind.service.exports import ExportsService
from safetraind.service.files import FilesService
from safetraind.service.jobs import JobsService
from safetraind.service.machines import MachinesService
from safetraind.service.models import ModelsService
from safetraind.service.preflight import PreflightService
from safetraind.service.stream_limit import MAX_STREAMS, Streams
from safetraind.storage.job_store import JobStore
from safetraind.submission import QuickCheck, Submission

log = logging.getLogger(__name__)

# A request holds settings or a conversation; a reply a few hundred events.
MAX_REQUEST_BYTES = 1 << 20
MAX_REPLY_BYTES = 16 << 20
# More than `MAX_STREAMS`, so that a stream beyond that is refused with an error, not left waiting.
MAX_CALLS = MAX_STREAMS + 56
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", MAX_REPLY_BYTES),
    ("grpc.max_concurrent_streams", MAX_CALLS),  # of one connection
    ("grpc.server_handshake_timeout_ms", 5_000),  # closes connections that send nothing
    ("grpc.so_reuseport", 0),
)
_FILES = (
    answers_pb2,
    control_pb2,
    data_pb2,
    diagnosis_pb2,
    events_pb2,
    evaluations_pb2,
    exports_pb2,
    files_pb2,
    jobs_pb2,
    machines_pb2,
    models_pb2,
    preflight_pb2,
)
_SERVICES = tuple(
    service.full_name
    for file in (*_FILES, health_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)
_METHODS = tuple(
    f"{service.full_name}/{method.name}"
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
WATCH_SECONDS = 0.5  # between two looks at the home's own files
_GRACE_SECONDS = 1.0  # for calls in progress when the daemon stops
_DESCRIPTORS = 4096  # the soft limit of a launchd agent is 256
_LOG_BYTES = 4 << 20


class _Formatter(logging.Formatter):
    """Formats log records without control sequences, which files or clients may contain."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        return printable(super().format(record))


class Checks(Checker, QuickCheck, Protocol):
    """The preflight functions that the daemon calls."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts that a test may replace."""

    worker_command: Sequence[str] = ()
    checks: Checks | None = None


def run(home: Home, parts: Parts | None = None) -> None:
    """Serve the home until SIGTERM, SIGINT, SIGHUP or `Control.Stop`.

    Raises Busy where another daemon serves it, NotAllowed for a folder of another user, NotFound
    where the home is deleted meanwhile, and what `JobStore` raises.
    """
    lock = HomeLock(home, take_home(home))
    try:
        _check_accessible(home)
        os.chdir("/")  # the current folder may be deleted, and workers inherit it
        _log_to(home.log)
        _truncate_if_large(home.log.with_suffix(".out"))
        _raise_descriptor_limit()
        gc.freeze()  # all that was imported stays: no collection need look through it
        asyncio.run(_Daemon(home, parts or Parts(), lock).serve())
    finally:
        lock.close()


def take_home(home: Home) -> int:
    """Lock the home for this process and return the lock's file descriptor. Raises Busy,
    NotAllowed.
    """
    try:
        private(home.root, parents=True)
        private(home.socket.parent)
        _check_file(home.lock)
        lock = try_lock(home.lock)
    except OSError as error:
        reason = error.strerror or str(error)
        raise NotAllowed("home.unwritable", path=str(home.root), reason=reason) from error
    if lock is None:
        raise Busy("daemon.running", pid=_pid_in(home.lock), home=str(home.root))
    write_pid(lock)
    return lock


def _check_accessible(home: Home) -> None:
    """Raise NotAllowed for a file of the home without which no job can run, and that this user may
    not read and write, such as one that a command under sudo has made.
    """
    database = home.database
    parts = [database.with_name(database.name + end) for end in ("", "-wal", "-shm")]
    for file in (home.log, home.lease(device()), *parts):
        _check_file(file)


def _check_file(file: Path) -> None:
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        mode = os.fstat(descriptor).st_mode
        os.close(descriptor)
    except PermissionError as error:
        raise NotAllowed("home.file_closed", path=str(file)) from error
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            return  # missing, a folder, a disk that can only be read: what uses it says so
        mode = 0
    if not stat.S_ISREG(mode):  # who opens a FIFO or a device may wait for ever
        raise NotAllowed("home.odd_file", path=str(file))


def _pid_in(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii") or 0)
    except (OSError, ValueError):
        return 0


def _log_to(path: Path) -> None:
    path.touch(mode=0o600)  # the home may be readable by others
    handler = RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=3, encoding="utf-8")
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.raiseExceptions = False  # on a full disk, no tracebacks on the terminal
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _truncate_if_large(output: Path) -> None:
    """Empty the file to which launchd appends standard output, once it is large."""
    with contextlib.suppress(OSError):
        if output.stat().st_size > _LOG_BYTES:
            os.truncate(output, 0)


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def device() -> str:
    """Return the device of workers on this machine: metal, cuda or cpu. Does not import MLX."""
    if os.uname().sysname == "Darwin":
        return "metal"
    return "cuda" if any(find_spec(f"mlx_cuda_{n}") for n in (12, 13)) else "cpu"


class _Daemon:
    """The daemon's parts, connected."""

    def __init__(self, home: Home, parts: Parts, lock: HomeLock) -> None:
        self._home = home
        self._lock = lock
        self._stop = asyncio.Event()
        self._now = False
        self._store = JobStore(home.database)
        self._supervisor = Supervisor(home, parts.worker_command)
        self._models = Models(home)
        self._planning = Planning(home, self._models, self._supervisor)
        checks = parts.checks or self._planning
        lease = Lease(home.lease(device()))
        self._controller = Controller(home, self._store, self._supervisor, lease, checks)
        self._submission = Submission(self._controller, self._models, checks)
        self._inference = InferenceServer(home, self._supervisor, lease)
        self._controller.lease_borrowers.append(self._inference)
        self._health = health.HealthServicer()
        self._servers: list[grpc.aio.Server] = []
        self._socket: Identity | None = None

    async def serve(self) -> None:
        """Open the home, serve until the stop, and shut down."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        await self._controller.open()
        self._services = self._made_services()
        await self._listen()
        for service in ("", *_SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        _notify("READY=1")
        log.info("serving %s, pid %d", self._home.socket, os.getpid())
        lost = await self._watched()
        _notify("STOPPING=1")
        log.info("stopping")
        await self._health.enter_graceful_shutdown()
        if lost is not None:
            await self._controller.abandon(lost)
        else:
            await self._controller.close(now=self._now)
        for server in self._servers:
            await server.stop(_GRACE_SECONDS)
        self._store.close()
        self._unlink_socket()
        log.info("stopped")
        if lost is not None:
            raise lost

    async def _watched(self) -> SafetrainError | None:
        """Wait for the stop, and mend the home meanwhile. Return the error where it cannot be
        mended.
        """
        watch = HomeWatch(self._home)
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS):
                    await self._stop.wait()
            try:
                self._controller.tidy()
                # Before the home: one that is replaced in between has the socket of another daemon.
                unheard = identity(self._home.socket) != self._socket
                lost = watch.look()
                if lost is None and unheard:
                    log.warning("%s was removed; listening there again", self._home.socket)
                    await self._listen()
                elif lost is not None:
                    log.warning("lost: the %s of %s", lost, self._home.root)
                    self._mend(lost, watch)
            except SafetrainError as error:
                log.error("%s", error)
                return error
            except OSError as error:
                log.warning("the home cannot be looked at: %s", error)
        return None

    def _mend(self, lost: Loss, watch: HomeWatch) -> None:
        """Mend the home. Raises NotFound where it is gone, Busy where another daemon took it."""
        if lost is Loss.HOME:
            raise NotFound("home.gone", path=str(self._home.root))
        if lost is Loss.LOCK:
            self._lock.renew()
        else:
            self._store.rescue()
        watch.renewed(lost)

    async def _listen(self) -> None:
        """Serve at the socket's path. Connections to an earlier server stay open."""
        server = self._server()
        # Bound under a name of its own: gRPC deletes what is at that name when a server stops.
        own = self._home.socket.with_name(f".{os.getpid()}.{len(self._servers)}")
        own.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            server.add_insecure_port(socket_target(own))
        finally:
            os.umask(before)
        await server.start()
        self._servers.append(server)
        own.replace(self._home.socket)  # an existing one is stale: this process has the lock
        self._socket = identity(self._home.socket)

    def _unlink_socket(self) -> None:
        if identity(self._home.socket) == self._socket:  # not one of a daemon that came after us
            self._home.socket.unlink(missing_ok=True)

    def _server(self) -> grpc.aio.Server:
        """Return a server for the services. gRPC cannot add an address to one that has started."""
        server = grpc.aio.server(options=_OPTIONS, interceptors=[UnderstoodRequests()])
        for add, servicer in self._services:
            add(servicer, server)
        reflection_v1.enable(_SERVICES, server)
        return server

    def _made_services(self) -> list[tuple[Callable[[Any, grpc.aio.Server], object], object]]:
        controller = self._controller
        machines = MachinesService(controller, self._models, self._supervisor, device())
        jobs = JobsService(controller, self._submission, machines.lent)
        control = ControlService(controller, device(), _METHODS, self._request_stop)
        preflight = PreflightService(controller, self._supervisor, self._planning)
        workers = EphemeralWorkers(self._home, self._supervisor)
        data, models = (
            DataService(workers, self._models),
            ModelsService(self._models, controller, workers),
        )
        streams = Streams()
        answers = AnswersService(controller, self._models, self._inference, streams)

        exports = ExportsService(controller, self._supervisor)
        evaluations = EvaluationsService(controller)
        diagnosis = DiagnosisService(controller, self._supervisor, self._models)
        return [
            (jobs_pb2_grpc.add_JobsServicer_to_server, jobs),
            (events_pb2_grpc.add_EventsServicer_to_server, EventsService(controller, streams)),
            (control_pb2_grpc.add_ControlServicer_to_server, control),
            (preflight_pb2_grpc.add_PreflightServicer_to_server, preflight),
            (data_pb2_grpc.add_DataServicer_to_server, data),
            (models_pb2_grpc.add_ModelsServicer_to_server, models),
            (machines_pb2_grpc.add_MachinesServicer_to_server, machines),
            (answers_pb2_grpc.add_AnswersServicer_to_server, answers),
            (exports_pb2_grpc.add_ExportsServicer_to_server, exports),
            (files_pb2_grpc.add_FilesServicer_to_server, FilesService(controller)),
            (evaluations_pb2_grpc.add_EvaluationsServicer_to_server, evaluations),
            (diagnosis_pb2_grpc.add_DiagnosisServicer_to_server, diagnosis),
            (health_pb2_grpc.add_HealthServicer_to_server, self._health),
        ]

    def _request_stop(self, now: bool) -> None:
        self._now = self._now or now
        self._stop.set()


def _notify(state: str) -> None:
    """Send a state to systemd, if it started this process (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sink, contextlib.suppress(OSError):
            sink.connect(address.replace("@", "\0", 1))
            sink.send(state.encode())

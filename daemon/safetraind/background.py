"""The service seen from outside: start it in the background, ask it, stop it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from typing import IO, Any

import grpc

from safetrain_proto.v1 import control_pb2, control_pb2_grpc
from safetrain_shared.errors import ERRORS, Busy, NotAllowed, SafetrainError, Unreachable
from safetrain_shared.paths import Home, socket_target, trusted
from safetraind.processes.lease import is_held

START_SECONDS = 60.0
_POLL_SECONDS = 0.05
_CALL_SECONDS = 5.0


def start(home: Home) -> int:
    """Starts the service, detached from this terminal, waits until it answers, returns its pid.

    Raises Busy where one runs already, or another start in the same moment was quicker, and
    whatever the new one refused with. Of a start that was refused nothing is left running.
    """
    refuse_another(home)
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "safetraind", "run"],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "SAFETRAIN_HOME": str(home.root)},
        )
        return _wait_for_answer(home, process, said)


def refuse_another(home: Home) -> None:
    """Raises Busy where a service runs for this home."""
    if home.root.is_dir() and is_held(home.lock):
        raise Busy("daemon.running", pid=_pid(home), home=str(home.root))


def wait(home: Home) -> int:
    """Waits until a service that somebody else starts answers, and returns its pid.

    Raises Unreachable where none does in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return int(info(home)["pid"])
        except (Unreachable, NotAllowed) as error:
            if time.monotonic() > deadline:
                args = {"log": str(home.log), "reason": f"{START_SECONDS} s"}
                raise Unreachable("daemon.start_failed", **args) from error
        time.sleep(_POLL_SECONDS)


def _wait_for_answer(home: Home, process: subprocess.Popen[bytes], said: IO[str]) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if info(home)["pid"] == process.pid:
                return process.pid
        except (Unreachable, NotAllowed):  # what lies in the socket's place will be replaced
            pass
        if process.poll() is not None:
            raise _refusal(home, process.returncode, said)
        time.sleep(_POLL_SECONDS)
    raise Unreachable("daemon.start_failed", log=str(home.log), reason=f"{START_SECONDS} s")


def _refusal(home: Home, code: int, said: IO[str]) -> SafetrainError:
    """The refusal of a daemon that ended at once, with its sentence and its exit code."""
    if code == Busy.exit_code:
        return Busy("daemon.running", pid=_pid(home), home=str(home.root))
    said.seek(0)
    lines = said.read().strip().splitlines()
    cls = {error.exit_code: error for error in ERRORS}.get(code, Unreachable)
    if not lines:
        return cls("daemon.start_died", log=str(home.log), code=code)
    reason = lines[-1].removeprefix("safetraind: ")
    return cls("daemon.start_failed", log=str(home.log), reason=reason)


def info(home: Home) -> dict[str, Any]:
    """What the running service says of itself. Raises Unreachable, and NotAllowed where something
    else lies in the place of its socket.
    """
    answer = _call(home, "Info", control_pb2.InfoRequest())
    return {
        "version": answer.version,
        "pid": answer.pid,
        "home": answer.home,
        "started": answer.started,
        "features": list(answer.features),
        "device": answer.device,
        "training_job": answer.training_job,
    }


def stop(home: Home, *, now: bool) -> int:
    """Stops the service and waits until it is gone. Returns the job that trains on, or 0.

    `now`: that job too gets its checkpoint and ends, which may take a step and a save.
    Raises Unreachable where none runs.
    """
    answer = _call(home, "Stop", control_pb2.StopRequest(now=now))
    while is_held(home.lock):
        time.sleep(_POLL_SECONDS)
    return int(answer.training_job)


def stop_if_running(home: Home) -> bool:
    """Stops the service gently, a training goes on; returns whether one ran."""
    try:
        stop(home, now=False)
    except Unreachable:
        return False
    return True


def _call(home: Home, method: str, request: Any) -> Any:
    try:
        path = trusted(home.socket)
    except OSError as error:
        raise Unreachable("daemon.unreachable", socket=str(home.socket)) from error
    with grpc.insecure_channel(socket_target(path)) as channel:
        stub = control_pb2_grpc.ControlStub(channel)
        try:
            return getattr(stub, method)(request, timeout=_CALL_SECONDS)
        except grpc.RpcError as error:
            raise Unreachable("daemon.unreachable", socket=str(home.socket)) from error


def _pid(home: Home) -> int:
    try:
        return int(home.lock.read_text(encoding="ascii") or 0)
    except (OSError, ValueError):
        return 0

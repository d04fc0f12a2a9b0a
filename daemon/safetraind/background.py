"""Starts the service in the background, queries it and stops it, from another process."""

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
from safetraind.processes.locks import is_held

START_SECONDS = 60.0
_POLL_SECONDS = 0.05
_CALL_SECONDS = 5.0


def start(home: Home) -> int:
    """Start the service detached from the terminal, wait until it answers and return its pid.

    Raises Busy where a service runs already or another process starts one at the same time, and
    the error of a service that does not start. A failed start leaves no process behind.
    """
    refuse_another(home)
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "safetraind", "run"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "SAFETRAIN_HOME": str(home.root)},
        )
        return _wait_for_answer(home, process, output)


def refuse_another(home: Home) -> None:
    """Raise Busy where a service runs for this home."""
    if home.root.is_dir() and is_held(home.lock):
        raise Busy("daemon.running", pid=_pid(home), home=str(home.root))


def wait(home: Home) -> int:
    """Wait until a service that another process starts answers, and return its pid.

    Raises Unreachable where none answers within START_SECONDS.
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


def _wait_for_answer(home: Home, process: subprocess.Popen[bytes], output: IO[str]) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if info(home)["pid"] == process.pid:
                return process.pid
        except (Unreachable, NotAllowed):  # the service will replace a stale or foreign socket
            pass
        if process.poll() is not None:
            raise _refusal(home, process.returncode, output)
        time.sleep(_POLL_SECONDS)
    raise Unreachable("daemon.start_failed", log=str(home.log), reason=f"{START_SECONDS} s")


def _refusal(home: Home, code: int, output: IO[str]) -> SafetrainError:
    """Return the error of a daemon that ended at once, by its exit code and last line."""
    if code == Busy.exit_code:
        return Busy("daemon.running", pid=_pid(home), home=str(home.root))
    output.seek(0)
    lines = output.read().strip().splitlines()
    cls = {error.exit_code: error for error in ERRORS}.get(code, Unreachable)
    if not lines:
        return cls("daemon.start_died", log=str(home.log), code=code)
    reason = lines[-1].removeprefix("safetraind: ")
    return cls("daemon.start_failed", log=str(home.log), reason=reason)


def info(home: Home) -> dict[str, Any]:
    """Return the running service's information as a JSON object.

    Raises Unreachable, and NotAllowed where its socket is not this user's alone.
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
    """Stop the service and wait for its end. Return the job that continues to train, or 0.

    `now`: that job saves a checkpoint and ends too, which may take a step and a save. Raises
    Unreachable where no service runs.
    """
    answer = _call(home, "Stop", control_pb2.StopRequest(now=now))
    while is_held(home.lock):
        time.sleep(_POLL_SECONDS)
    return int(answer.training_job)


def stop_if_running(home: Home) -> bool:
    """Stop the service gracefully, if one runs, and return whether one ran. A training
    continues.
    """
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

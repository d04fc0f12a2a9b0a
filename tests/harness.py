"""A real daemon in a home of its own, and what tests need to talk to it and to wait for things."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grpc
import psutil

from safetrain_proto.v1 import (
    answers_pb2_grpc,
    control_pb2,
    control_pb2_grpc,
    data_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    models_pb2_grpc,
    preflight_pb2_grpc,
)
from safetrain_shared.jobs import FINAL, JobSpec, JobState
from safetrain_shared.paths import Home, socket_target
from safetrain_shared.wire import event_from_wire, spec_to_wire, state_from_wire

SAFETRAIND = (sys.executable, "-m", "safetraind", "run")
# gRPC asks a socket that does not answer yet again after a pause that grows to two minutes.
# Channels to one path share a connection, which may still lead to the daemon before.
_CHANNEL = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
)
T = TypeVar("T")


def wait_for(condition: Callable[[], T], seconds: float = 60.0, what: str = "") -> T:
    """The first true value of `condition`; fails the test after `seconds`.

    It is asked ever less often: most conditions are a call, which takes 2 ms of processor time.
    """
    began = time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        waited = time.monotonic() - began
        if waited > seconds:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(min(0.06, 0.01 + 0.05 * waited))


class DaemonProcess:
    """One daemon of a home. It may be killed and started again; the home stays."""

    def __init__(
        self, home: Path, command: Sequence[str] = SAFETRAIND, env: dict[str, str] | None = None
    ) -> None:
        self.home = Home(home)
        self._command = tuple(command)
        self._env = env or {}
        self.process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.Channel | None = None

    def environment(self) -> dict[str, str]:
        """What daemon and commands of this home run with."""
        return {
            **os.environ,
            "SAFETRAIN_HOME": str(self.home.root),
            "SAFETRAIN_LANG": "en",
            **self._env,
        }

    def start(self) -> DaemonProcess:
        """Starts it and waits until it answers."""
        self.spawn()
        self.wait_until_serving()
        return self

    def spawn(self) -> None:
        """Starts it without waiting."""
        self.home.root.parent.mkdir(parents=True, exist_ok=True)
        log = (self.home.root.parent / f"{self.home.root.name}.stderr").open("ab")
        with log:
            self.process = subprocess.Popen(
                self._command, env=self.environment(), stdout=log, stderr=log
            )

    def wait_until_serving(self) -> None:
        """Waits for the first answer; says what the daemon said if it ended instead."""

        def serves() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"safetraind ended: {self.said()}")
            try:
                self.info(timeout=1)
            except grpc.RpcError:
                return False
            return True

        wait_for(serves, 180, "safetraind serves")  # on a busy machine, at a low priority

    def said(self) -> str:
        """The end of what it printed and logged."""
        texts = []
        for path in (self.home.root.parent / f"{self.home.root.name}.stderr", self.home.log):
            with contextlib.suppress(OSError):
                if path.is_file():  # a test may have put something else there
                    texts.append(path.read_text(errors="replace")[-3000:])
        return "\n".join(texts)

    def kill(self) -> None:
        """SIGKILL, to the daemon alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self._close_channel()

    def terminate(self, seconds: float = 60) -> int:
        """SIGTERM, and its exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(seconds)
        self._close_channel()
        return code

    def end(self) -> None:
        """Kills it and every process that works for its home."""
        self._close_channel()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()

    def processes(self) -> list[psutil.Process]:
        """Every living process that runs with this home in its environment, but for this one."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                home = process.environ().get("SAFETRAIN_HOME")
                if home == str(self.home.root) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return [p for p in found if p.pid != os.getpid()]

    def keepers(self) -> list[psutil.Process]:
        """The living keepers."""
        return [p for p in self.processes() if _runs(p, "keeper.py")]

    def workers(self) -> list[psutil.Process]:
        """The living workers: what has a run's folder as its last argument."""
        runs = str(self.home.root / "runs")
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                command = process.cmdline()
                if command and command[-1].startswith(runs) and not _runs(process, "keeper.py"):
                    found.append(process)
        return found

    # gRPC.

    @property
    def channel(self) -> grpc.Channel:
        """An open channel, reused until the daemon is killed."""
        if self._channel is None:
            target = socket_target(self.home.socket)
            self._channel = grpc.insecure_channel(target, options=_CHANNEL)
        return self._channel

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    @property
    def jobs(self) -> jobs_pb2_grpc.JobsStub:
        return jobs_pb2_grpc.JobsStub(self.channel)

    @property
    def events(self) -> events_pb2_grpc.EventsStub:
        return events_pb2_grpc.EventsStub(self.channel)

    @property
    def control(self) -> control_pb2_grpc.ControlStub:
        return control_pb2_grpc.ControlStub(self.channel)

    @property
    def answers(self) -> answers_pb2_grpc.AnswersStub:
        return answers_pb2_grpc.AnswersStub(self.channel)

    @property
    def data(self) -> data_pb2_grpc.DataStub:
        return data_pb2_grpc.DataStub(self.channel)

    @property
    def models(self) -> models_pb2_grpc.ModelsStub:
        return models_pb2_grpc.ModelsStub(self.channel)

    @property
    def preflight(self) -> preflight_pb2_grpc.PreflightStub:
        return preflight_pb2_grpc.PreflightStub(self.channel)

    def info(self, timeout: float = 30) -> control_pb2.InfoResponse:
        return self.control.Info(control_pb2.InfoRequest(), timeout=timeout)

    def submit(self, spec: JobSpec, **options: Any) -> jobs_pb2.SubmitResponse:
        request = jobs_pb2.SubmitRequest(spec=spec_to_wire(spec), **options)
        return self.jobs.Submit(request, timeout=60)

    def job(self, job_id: int) -> jobs_pb2.Job:
        return self.jobs.Get(jobs_pb2.JobRequest(id=job_id), timeout=60)

    def state(self, job_id: int) -> JobState | None:
        return state_from_wire(self.job(job_id).state)

    def wait_for_state(self, job_id: int, *states: JobState, seconds: float = 120) -> JobState:
        """Waits until the job is in one of `states`, by default in a final one."""
        wanted = states or tuple(FINAL)

        def reached() -> JobState | None:
            state = self.state(job_id)
            if not states or state in states or state not in FINAL:
                return state if state in wanted else None
            raise AssertionError(f"job {job_id} is {state}: {self.job(job_id).cause.text}")

        return wait_for(reached, seconds, f"job {job_id} is {', '.join(wanted)}")  # type: ignore[return-value]

    def watch(self, job_id: int, after_seq: int = 0, *, follow: bool = False) -> Iterator[Any]:
        """The job's events as `safetrain_shared.events.Event`."""
        request = events_pb2.WatchRequest(job_id=job_id, after_seq=after_seq, follow=follow)
        for batch in self.events.Watch(request, timeout=120):
            yield from (event_from_wire(event) for event in batch.events)


def _runs(process: psutil.Process, name: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(Path(part).name == name for part in process.cmdline())
    return False


def kill_all(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL to each that still lives."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)

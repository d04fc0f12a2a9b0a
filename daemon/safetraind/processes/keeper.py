"""The small parent of one worker: waits for it, and writes the cause of its end.

`keeper.py RUN_FOLDER ROLE [COMMAND …]` runs `COMMAND … ROLE RUN_FOLDER`, by default `python -m
safetraind.worker`. A daemon that was started anew is not the worker's parent and could never learn
its exit status; this program can. It imports the standard library alone, so that an upgrade under a
running training can't break it. An ephemeral worker (probe, serve, inspect) gets a pipe as its
keeper's standard input and is ended when the daemon at the other end is gone. One of several ranks
is ended when another rank's worker is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

_SAMPLE_SECONDS = 2.0
_FORWARDED = (signal.SIGTERM, signal.SIGINT)
_LOG_BYTES = 8 << 20  # of worker.log; of a larger one the newest part is kept
_LOG_KEPT = 1 << 20
_OF_JOBS = ("train", "evaluate")  # their workers go on without the daemon
# Hold off the sleep of an idle Mac.
_AWAKE = (*_OF_JOBS, "rank", "probe", "pilot", "fetch", "convert", "export")
_RANK_FD = "SAFETRAIN_RANK_FD"
_LEAVE_SECONDS = 0.2  # for a rank to leave by itself, once another one is gone
_ROOM = 1024  # bytes kept for exit.json from the start, so that a full disk can't refuse it


def main(arguments: list[str]) -> int:
    """Run the worker to its end and write `exit.json`. Return 0 once that is done."""
    run, role = Path(arguments[0]), arguments[1]
    attempt = _attempt(run)
    command = arguments[2:] or [sys.executable, "-m", "safetraind.worker"]
    _bound(run / "worker.log")
    exit_file = _reserve(run / "exit.json")
    kills = _KernelKills()
    stopped: list[int] = []
    for number in _FORWARDED:
        signal.signal(number, lambda number, _frame: stopped.append(number))
    worker = subprocess.Popen(
        [*command, role, str(run)], stdin=subprocess.DEVNULL, pass_fds=_descriptors()
    )
    _forward_signals(worker, stopped)
    lost: list[int] = []  # ranks
    _follow_peers(worker, lost)
    sampler = _Sampler(worker.pid, run / "worker.log")
    if role in _AWAKE:
        _keep_awake(worker.pid)
    if role not in _OF_JOBS:
        threading.Thread(target=_end_with_daemon, args=(worker,), daemon=True).start()
    _, status = os.waitpid(worker.pid, 0)
    worker.returncode = os.waitstatus_to_exitcode(status)
    peer = lost[0] if lost else -1
    ended = {  # `storage.run_folder.KeeperNote`
        "format": 1,
        "attempt": attempt,
        "role": role,
        "code": max(worker.returncode, 0),
        "signal": max(-worker.returncode, 0),
        "oom_kills": kills.since_then(),
        "footprint": sampler.last,
        "pressure": sampler.pressure,
        "ended": time.time(),
        "peer": peer,
    }
    _commit(exit_file, run / "exit.json", json.dumps(ended))
    return 0


def _descriptors() -> list[int]:
    """Return the locks that the worker keeps if this keeper is killed."""
    names = ("SAFETRAIN_RUN_FD", "SAFETRAIN_LEASE_FD", "SAFETRAIN_OUTPUT_FD", _RANK_FD)
    return [int(os.environ[name]) for name in names if name in os.environ]


def _follow_peers(worker: subprocess.Popen[bytes], lost: list[int]) -> None:
    """Kill the worker when that of another rank is gone, and note that rank in `lost`.

    Each rank's worker alone holds the writing end of a pipe. It writes to it before it ends by
    itself, except rank 0: nothing is left to do without it.
    """
    if _RANK_FD in os.environ:
        os.close(int(os.environ[_RANK_FD]))  # the worker's own
    for peer in filter(None, os.environ.get("SAFETRAIN_PEER_FDS", "").split(",")):
        rank, descriptor = map(int, peer.split(":"))
        arguments = (worker, rank, descriptor, lost)
        threading.Thread(target=_end_with_peer, args=arguments, daemon=True).start()


def _end_with_peer(
    worker: subprocess.Popen[bytes], rank: int, descriptor: int, lost: list[int]
) -> None:
    said = b""
    while part := os.read(descriptor, 64):
        said += part
    if said and rank:
        return
    time.sleep(_LEAVE_SECONDS)
    if worker.returncode is None:
        lost.append(rank)
        _send(worker, signal.SIGKILL)


def _forward_signals(worker: subprocess.Popen[bytes], stopped: list[int]) -> None:
    def forward(number: int, _frame: FrameType | None) -> None:
        _send(worker, number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    for early in stopped:
        _send(worker, early)


def _send(worker: subprocess.Popen[bytes], number: int) -> None:
    if worker.returncode is None:  # once it was waited for, its pid may be another's
        os.kill(worker.pid, number)


def _end_with_daemon(worker: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    _send(worker, signal.SIGKILL)


def _keep_awake(pid: int) -> None:
    """Prevent idle sleep on a Mac while the worker lives."""
    if sys.platform == "darwin":
        subprocess.Popen(["/usr/bin/caffeinate", "-i", "-w", str(pid)], stdin=subprocess.DEVNULL)


class _Sampler:
    """Samples the worker's footprint every two seconds, and on a Mac the system's memory pressure.

    The last samples are evidence of the cause of death. It also keeps the worker's log small.
    """

    def __init__(self, pid: int, log: Path) -> None:
        self.last = 0
        self.pressure = 0
        self._pid = pid
        self._log = log
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while (value := footprint(self._pid)) is not None:
            self.last = value or self.last
            self.pressure = _pressure()
            _bound(self._log)
            time.sleep(_SAMPLE_SECONDS)


def _bound(log: Path) -> None:
    """Cut a log that grew too large to its newest part.

    Its writers append, and so continue behind that part.
    """
    with contextlib.suppress(OSError):
        size = log.stat().st_size
        if size > _LOG_BYTES:
            descriptor = os.open(log, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            newest = os.pread(descriptor, _LOG_KEPT, size - _LOG_KEPT).partition(b"\n")[2]
            os.ftruncate(descriptor, 0)
            os.write(descriptor, newest)
            os.close(descriptor)


def _pressure() -> int:
    """Return the kernel's own level on macOS: 1 normal, 2 warning, 4 critical. 0 where there is
    none.
    """
    level = ctypes.c_int(0)
    if sys.platform == "darwin":
        size, name = ctypes.c_size_t(ctypes.sizeof(level)), b"kern.memorystatus_vm_pressure_level"
        ctypes.CDLL(None).sysctlbyname(name, ctypes.byref(level), ctypes.byref(size), None, 0)
    return level.value


def footprint(pid: int) -> int | None:
    """Return the footprint of a process in bytes: phys_footprint on macOS, PSS on Linux.

    None once the process is gone.
    """
    if sys.platform == "darwin":
        # proc_pid_rusage, RUSAGE_INFO_V0: a 16-byte uuid, then 64-bit counts; the eighth is it.
        info = (ctypes.c_uint64 * 16)()
        libc = ctypes.CDLL(None)
        return None if libc.proc_pid_rusage(pid, 0, ctypes.byref(info)) else int(info[9])
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return 0


class _KernelKills:
    """Counts the kernel's kills for memory since this object was made."""

    def __init__(self) -> None:
        self._in_group, self._anywhere = _kills_in_group(), _kills_anywhere()

    def since_then(self) -> int | None:
        """Return the number of memory kills in this process's control group since then. Where that
        count can't be read, return 0 if the kernel has killed nothing at all, else None.
        """
        now = _kills_in_group()
        if now is not None and self._in_group is not None:
            return now - self._in_group
        anywhere = _kills_anywhere()
        return 0 if anywhere is not None and anywhere == self._anywhere else None


def _kills_in_group() -> int | None:
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            file = Path(f"/sys/fs/cgroup/memory{path}/memory.oom_control")
        elif not controllers:
            file = Path(f"/sys/fs/cgroup{path}/memory.events")
        else:
            continue
        if (count := _count_in(file)) is not None:
            return count
    return None


def _kills_anywhere() -> int | None:
    return _count_in(Path("/proc/vmstat"))


def _count_in(file: Path) -> int | None:
    """Return the `oom_kill` of a file of names and numbers."""
    try:
        return int(dict(line.split() for line in file.read_text().splitlines())["oom_kill"])
    except (OSError, KeyError, ValueError):
        return None


def _attempt(run: Path) -> int:
    try:
        descriptor = os.open(run / "launch.json", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor) as file:
            return int(json.load(file)["attempt"])
    except (OSError, ValueError, KeyError):
        return 0


def _reserve(path: Path) -> int:
    """Return an open file beside `path`, with space reserved for the note."""
    new, flags = Path(f"{path}.new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    flags |= os.O_NONBLOCK  # a FIFO would wait for its reader
    try:
        descriptor = os.open(new, flags, 0o600)
    except OSError:  # the name is ours, whoever took it
        shutil.rmtree(new, ignore_errors=True)
        new.unlink(missing_ok=True)
        descriptor = os.open(new, flags, 0o600)
    os.write(descriptor, b" " * _ROOM)
    return descriptor


def _commit(descriptor: int, path: Path, text: str) -> None:
    os.pwrite(descriptor, text.ljust(_ROOM - 1).encode() + b"\n", 0)
    os.fsync(descriptor)
    os.close(descriptor)
    Path(f"{path}.new").replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

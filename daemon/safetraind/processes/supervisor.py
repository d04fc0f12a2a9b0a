"""Starts workers, each below its keeper, and waits for their ends."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import psutil

from safetrain_shared.paths import Home, RunFolder, private
from safetraind import host
from safetraind.processes.locks import is_held
from safetraind.processes.rank_links import ALONE, RankLink, links_between
from safetraind.processes.worker_environment import for_computing
from safetraind.storage import documents
from safetraind.storage.delivered_watermark import MOST_SEQ
from safetraind.storage.durable import open_file
from safetraind.storage.run_folder import Launch

log = logging.getLogger(__name__)

_OF_JOBS = ("train", "evaluate")  # roles whose workers outlive the daemon
# MLX's JACCL reads each of its variables with either beginning.
_OF_JACCL = ("RANK", "IBV_DEVICES", "COORDINATOR", "RING")
_NOT_PASSED_ON = (
    *("NOTIFY_SOCKET", "MLX_HOSTFILE", "MLX_RANK", "MLX_IBV_DEVICES"),
    *(f"{mlx}JACCL_{name}" for mlx in ("", "MLX_") for name in _OF_JACCL),
)
_KEEPER = Path(__file__).with_name("keeper.py")
_ADOPTED_SECONDS = 0.25  # a worker that is not our child cannot be waited for
# A restarted machine may have lost events that watchers saw: the next attempt stays clear of them.
SEQ_BLOCK = 10_000


class Supervisor:
    """Starts workers with the environment that all of them share."""

    def __init__(self, home: Home, worker_command: Sequence[str] = ()) -> None:
        """`worker_command`: a program to run instead of `python -m safetraind.worker`."""
        self._home = home
        self._worker_command = tuple(worker_command)

    async def start(
        self,
        run: RunFolder,
        role: str,
        *,
        lock: int,
        lease: int | None = None,
        output: int | None = None,
        ranks: int = 1,
        link: RankLink = ALONE,
    ) -> Worker:
        """Start keeper and worker, which inherit the locks; the caller closes its own copies.

        With several `ranks` it is a worker each, all of which hold the locks. `link`: of the one
        worker, where its training has ranks on other machines. `launch.json` of each
        must have been written. Raises OSError, and NotAllowed where the worker's socket would be
        open to others.
        """
        held = {
            "SAFETRAIN_RUN_FD": lock,
            "SAFETRAIN_LEASE_FD": lease,
            "SAFETRAIN_OUTPUT_FD": output,
        }
        locks = {name: fd for name, fd in held.items() if fd is not None}
        private(run.socket.parent)  # of a long path it is another folder, which may be gone
        if ranks == 1:
            return Worker(run, [await self._start_one(run, role, locks, link)])
        keepers = []
        with links_between(run, ranks) as links:
            for number, link in enumerate(links):
                keepers.append(await self._start_one(run.rank(number), role, locks, link))
        return Worker(run, keepers)

    async def _start_one(
        self, run: RunFolder, role: str, locks: Mapping[str, int], link: RankLink = ALONE
    ) -> Process:
        run.exit.unlink(missing_ok=True)
        for stale in (run.heartbeat, run.heartbeat.with_name(f"{run.heartbeat.name}.new")):
            stale.unlink(missing_ok=True)
        log = open_file(run.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(_KEEPER), str(run.root), role),
                *self._worker_command,
                stdin=DEVNULL if role in _OF_JOBS else PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(*locks.values(), *link.descriptors),
                env=self._environment(role, locks) | dict(link.environment),
            )
        finally:
            os.close(log)

    def adopt(self, run: RunFolder) -> Worker:
        """Return the living worker, or ranks, that another daemon of this home started."""
        return Worker(run, [])

    def _environment(self, role: str, locks: Mapping[str, int]) -> dict[str, str]:
        environment = {k: v for k, v in os.environ.items() if k not in _NOT_PASSED_ON}
        environment |= {name: str(fd) for name, fd in locks.items()}
        environment |= {"SAFETRAIN_HOME": str(self._home.root), "HF_HUB_DISABLE_TELEMETRY": "1"}
        if role in ("train", "rank"):
            environment["HF_HUB_OFFLINE"] = "1"
        return for_computing(environment)


class Worker:
    """A living worker, or all ranks of one training, our own children or adopted."""

    def __init__(self, run: RunFolder, keepers: Sequence[Process]) -> None:
        """`keepers`: that of each rank, rank 0 first; none where they were adopted."""
        self.run = run
        self._keepers = keepers

    async def ended(self) -> None:
        """Wait until all keepers and workers are gone."""
        for keeper in self._keepers:
            await keeper.wait()
        while self._lives():
            await asyncio.sleep(_ADOPTED_SECONDS)

    def _lives(self) -> bool:
        try:
            return is_held(self.run.lock)
        except PermissionError:  # another user's by now: who asks the lock would wait for ever
            return bool(workers_of(self.run))
        except OSError as error:  # descriptors used up: who can't ask knows nothing
            log.warning("%s: %s; asking again", self.run.root, error)
            return True

    def footprint(self) -> int:
        """Return the bytes of the workers and their own child processes; 0 where they are gone."""
        total = 0
        for keeper in self._keepers:
            with contextlib.suppress(psutil.Error):
                children = psutil.Process(keeper.pid).children(recursive=True)
                total += sum(host.footprint(child.pid) for child in children)
        return total

    def terminate(self) -> None:
        """Ask the worker to end. The keeper forwards the signal."""
        for keeper in self._keepers[:1]:
            with contextlib.suppress(ProcessLookupError):
                keeper.terminate()

    def kill(self) -> None:
        """Kill an ephemeral worker. Its keeper sees the pipe close, and kills it.

        Where the keeper is gone, the worker is found by its command line, which names the run.
        """
        for keeper in self._keepers:
            if keeper.stdin is not None:
                keeper.stdin.close()
        if not self._keepers or any(keeper.returncode is not None for keeper in self._keepers):
            kill_workers(self.run)


def kill_workers(run: RunFolder) -> None:
    """Kill the user's processes that have this run folder as an argument, or that of a rank."""
    for process in workers_of(run):
        with contextlib.suppress(psutil.Error):
            process.kill()


def workers_of(run: RunFolder) -> list[psutil.Process]:
    """Return the user's living processes that have this run folder as an argument, or that of a
    rank of it.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.uids().real == os.getuid() and _names(run, process.cmdline()[1:])
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _names(run: RunFolder, arguments: Sequence[str]) -> bool:
    root = str(run.root)
    return any(one == root or one.startswith(f"{root}/ranks/") for one in arguments)


def write_launch(run: RunFolder, role: str, attempt: int, floor: int) -> None:
    """Write which worker is being started. `floor`: an exclusive lower bound of its `seq`. Raises
    OSError.
    """
    documents.write(run.launch, Launch(role, attempt, floor, boot_id()))


def seq_floor(run: RunFolder, seen: int, in_file: int) -> int:
    """Return the exclusive lower bound of `seq` for a new writer.

    `seen`: the highest that may be known to somebody; `in_file`: the highest in the file, which may
    have lost some. After a restart of the machine a new block begins; that is noted in
    `launch.json`, so that it begins once. Raises OSError.
    """
    launch = documents.read_known(run.launch, Launch)
    # A number that can never have been given out is none.
    floor = launch.seq_floor if launch and 0 <= launch.seq_floor < MOST_SEQ else 0
    if launch and launch.boot_id != boot_id():
        floor = max(seen, in_file, floor) + SEQ_BLOCK
        launch = dataclasses.replace(launch, seq_floor=floor, boot_id=boot_id())
        documents.write(run.launch, launch)
    elif in_file < seen:
        floor = max(seen, floor)
    return floor


@cache
def boot_id() -> str:
    """Return the identity of this boot of the machine. It cannot change while this process
    lives.
    """
    return host.boot_id()

"""The inference server: keeps a model loaded to answer questions, and gives way to the next job."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from pathlib import Path

from safetrain_shared.codec import to_plain
from safetrain_shared.errors import Broken, Busy
from safetrain_shared.paths import Home, private
from safetraind.processes.lease import Lease
from safetraind.processes.locks import try_lock
from safetraind.processes.supervisor import Supervisor, Worker, write_launch
from safetraind.storage.durable import write_json
from safetraind.worker_messages.serve_messages import ServeRequest

log = logging.getLogger(__name__)

_NAME = "serve"
_READY_POLL_SECONDS = 0.05
_STARTS = 2  # one that was just leaving is followed by another
_LEAVE_SECONDS = 3.0  # for the token in progress


class InferenceServer:
    """At most one `serve` worker. It holds the lease until it is idle or asked to leave."""

    def __init__(self, home: Home, supervisor: Supervisor, lease: Lease) -> None:
        self._run = home.run(_NAME)
        self._supervisor = supervisor
        self._lease = lease
        self._worker: Worker | None = None
        self._starting = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def lives(self) -> bool:
        """Whether the server can be asked without taking the lease."""
        return self._worker is not None

    async def socket(self, request: ServeRequest) -> Path:
        """Return the socket to ask at, once a worker listens. `request` starts one where none runs.

        Raises Busy where another process holds the lease, Broken where no worker comes up.
        """
        async with self._starting:
            for _ in range(_STARTS):
                if self._worker is None:
                    await self._start(request)
                if await self._listens():
                    return self._run.socket
        raise Broken("daemon.broken", reason=_NAME, log=str(self._run.log))

    async def _listens(self) -> bool:
        """Wait until the worker listens. Return False where it ends instead."""
        while self._worker is not None:
            if self._run.socket.exists():
                return True
            await asyncio.sleep(_READY_POLL_SECONDS)
        return False

    async def leave(self) -> None:
        """End the worker, politely at first, and free the lease."""
        async with self._starting:
            worker, task = self._worker, self._task
            if worker is None or task is None:
                return
            worker.terminate()
            await asyncio.wait({task}, timeout=_LEAVE_SECONDS)
            if not task.done():
                worker.kill()
                await asyncio.wait({task})

    async def _start(self, request: ServeRequest) -> None:
        lease = await self._lease.take_soon()
        if lease is None:
            raise Busy("job.lease_busy")
        try:
            private(self._run.root.parent)
            private(self._run.root)
            self._run.socket.unlink(missing_ok=True)
            write_json(self._run.root / "serve_request.json", to_plain(request))
            write_launch(self._run, _NAME, 1, 0)
            lock = try_lock(self._run.lock)
            if lock is None:
                raise Busy("job.lease_busy")
            try:
                worker = await self._supervisor.start(self._run, _NAME, lock=lock, lease=lease)
            finally:
                os.close(lock)
        finally:
            os.close(lease)
        self._worker = worker
        self._task = asyncio.create_task(self._wait(worker))

    async def _wait(self, worker: Worker) -> None:
        await worker.ended()
        worker.kill()  # closes its keeper's pipe
        self._worker = self._task = None
        log.info("the inference server has ended")
        shutil.rmtree(self._run.root, ignore_errors=True)

"""Work that must not be lost to a full disk: done now, or tried until the disk takes it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from safetrain_shared.errors import Busy, NoRoom

log = logging.getLogger(__name__)
T = TypeVar("T")

AGAIN_SECONDS = 2.0  # when the disk refused, or descriptors were used up


class Retries:
    """Background tasks of the controller, and acts that are tried until they succeed."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that is kept until it ends. An exception of it is logged."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_log_failure)
        return task

    async def cancel(self) -> None:
        """Cancel every task and wait for its end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def persist(self, what: str, act: Callable[[], object]) -> None:
        """Call `act` now, or in the background until the disk takes it."""
        try:
            act()
        except (OSError, NoRoom, Busy) as error:
            log.warning("%s: %s; trying again", what, error)
            self.later(what, act)

    def later(self, what: str, act: Callable[[], object]) -> None:
        """Call `act` in the background, until it succeeds."""
        self.begin(_until_done(what, act))

    async def until_whole(self, act: Callable[[], Awaitable[T]]) -> T:
        """Call `act` until it succeeds, whatever it raises, and return its result."""
        while True:
            try:
                return await act()
            except Exception:
                log.exception("broke; trying again")
                await asyncio.sleep(AGAIN_SECONDS)

    async def until_possible(self, act: Callable[[], T]) -> T:
        """Call `act` until disk and file descriptors allow it, and return its result.

        `act` must do everything or nothing.
        """
        while True:
            try:
                return act()
            except (OSError, NoRoom) as error:
                log.warning("%s; trying again", error)
                await asyncio.sleep(AGAIN_SECONDS)


async def _until_done(what: str, act: Callable[[], object]) -> None:
    while True:
        await asyncio.sleep(AGAIN_SECONDS)
        with contextlib.suppress(OSError, NoRoom, Busy):
            act()
            log.info("%s: done", what)
            return


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a task failed", exc_info=task.exception())

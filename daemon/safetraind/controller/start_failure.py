"""The cause of a worker that could not be started, and whether another try can succeed."""

from __future__ import annotations

import errno

from safetrain_shared.errors import SafetrainError
from safetrain_shared.findings import Finding, Status, finding_of
from safetrain_shared.paths import RunFolder

# What refuses a start for now only: room on the disk, descriptors, processes, memory.
_MAY_COME_AGAIN = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.EAGAIN,
        errno.ENOMEM,
    }
)


def start_failure(run: RunFolder, error: Exception) -> Finding:
    """Return the cause of a start that failed; `disk.refused` where waiting may help."""
    if isinstance(error, SafetrainError):
        return finding_of(error, Status.WARNING)
    path, reason = str(run.root), f"{type(error).__name__}: {error}"
    if isinstance(error, OSError):
        path, reason = str(error.filename or run.root), error.strerror or str(error)
    wanting = isinstance(error, OSError) and error.errno in _MAY_COME_AGAIN
    code = "disk.refused" if wanting else "job.cannot_start"
    return Finding(code, Status.WARNING, args={"path": path, "reason": reason})

"""The delivered watermark of each job: no event number up to it is ever used again."""

from __future__ import annotations

import contextlib
import os

from safetrain_shared.paths import Home
from safetraind.storage.durable import open_file, read_file

_DIGITS = 20
# Of a `seq`: far beyond any training, and far from where 64 bits end.
MOST_SEQ = 1 << 48


class DeliveredWatermark:
    """The highest `seq` of each job that any client was sent, kept in its run folder, in `told`.

    Written in place before the events go out and never synced: the kernel keeps it when a process
    is killed, a full disk can't refuse it, and after a restart of the machine a new block begins
    anyway (`supervisor.seq_floor`). An event file that ends below it was cut short.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._known: dict[int, int] = {}

    def known(self, job_id: int) -> int:
        """Return the highest `seq` that a client may know; 0: none."""
        if job_id not in self._known:
            self._known[job_id] = self._read(job_id)
        return self._known[job_id]

    def _read(self, job_id: int) -> int:
        """Return the number in the file; 0 where it is missing or was never written."""
        try:
            seq = int(read_file(self._home.run(job_id).delivered)[: 2 * _DIGITS].decode("ascii"))
        except (OSError, ValueError):
            return 0
        return seq if 0 <= seq < MOST_SEQ else 0

    def note(self, job_id: int, seq: int) -> None:
        """Note that all events up to `seq` are about to be sent.

        Where the file can't be written, only memory keeps it.
        """
        if seq <= self.known(job_id):
            return
        self._known[job_id] = seq
        with contextlib.suppress(OSError):
            descriptor = open_file(self._home.run(job_id).delivered, os.O_WRONLY | os.O_CREAT)
            try:
                os.pwrite(descriptor, str(seq).zfill(_DIGITS).encode(), 0)
            finally:
                os.close(descriptor)

    def forget(self, job_id: int) -> None:
        """Drop a removed job from memory."""
        self._known.pop(job_id, None)

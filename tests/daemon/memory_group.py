"""A control group with a memory limit, where the controller can be written (version 1 or 2)."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path


class MemoryGroup:
    """One group below our own. Processes that a wrapped command starts live in it."""

    def __init__(self, folder: Path, *, limit: str, joins: str, usage: str) -> None:
        self._folder = folder
        self._limit, self._joins, self._usage = limit, joins, usage

    def wrap(self, command: Sequence[str]) -> tuple[str, ...]:
        """The command, run inside the group from its first moment."""
        enter = f'echo $$ > "{self._folder / self._joins}" && exec "$@"'
        return ("/bin/sh", "-c", enter, "sh", *command)

    def allow(self, size: int) -> None:
        """Sets the limit, bytes, swap included where there is any."""
        (self._folder / self._limit).write_text(str(size))

    def used(self) -> int:
        """Bytes in use, as the controller counts them."""
        return int((self._folder / self._usage).read_text())

    def used_for_good(self) -> int:
        """The same without what the kernel gives back before it kills: files read once."""
        found = re.search(
            r"^inactive_file (\d+)$", (self._folder / "memory.stat").read_text(), re.M
        )
        return self.used() - (int(found[1]) if found else 0)

    def kills(self) -> int:
        """How often the kernel has killed here for memory."""
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                pairs = dict(
                    line.split() for line in (self._folder / name).read_text().split("\n") if line
                )
                return int(pairs["oom_kill"])
        return 0

    def remove(self) -> None:
        """Deletes the group once its processes are gone."""
        for _ in range(100):
            with contextlib.suppress(OSError):
                self._folder.rmdir()
                return
            time.sleep(0.05)


@contextlib.contextmanager
def memory_group() -> Iterator[MemoryGroup | None]:
    """A group without a limit yet; None where no controller can be written."""
    group = _version_1() or _version_2()
    try:
        yield group
    finally:
        if group is not None:
            group.remove()


def _version_1() -> MemoryGroup | None:
    folder = _made(Path("/sys/fs/cgroup/memory"), "memory")
    if folder is None:
        return None
    names = {"limit": "memory.limit_in_bytes", "usage": "memory.usage_in_bytes"}
    return MemoryGroup(folder, joins="tasks", **names)


def _version_2() -> MemoryGroup | None:
    folder = _made(Path("/sys/fs/cgroup"), "")
    if folder is None or not (folder / "memory.max").exists():
        return None
    return MemoryGroup(folder, joins="cgroup.procs", limit="memory.max", usage="memory.current")


def _made(root: Path, controller: str) -> Path | None:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == controller:
            folder = root / path.lstrip("/") / f"safetrain-test-{os.getpid()}-{time.time_ns()}"
            with contextlib.suppress(OSError):
                folder.mkdir()
                return folder
    return None


def can_run_in(group: MemoryGroup) -> bool:
    """Whether a process may really enter the group."""
    command = group.wrap((sys.executable, "-c", ""))
    return subprocess.run(command, capture_output=True, check=False).returncode == 0

"""The way of MLX's ring to another machine: TCP ports of both loopback interfaces, joined by ssh.

MLX's ring takes whoever connects first, and neither side proves who it is. So the ranks listen on
loopback alone, and what they send goes through the ssh of the user, who is known to both machines.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterable
from tempfile import TemporaryFile
from typing import IO

from safetrain_shared.errors import Unreachable
from safetrain_shared.printable import printable
from safetrain_shared.remote.host_list import Host

READY_SECONDS = 30.0
_MOST_GREETING = 200  # lines that a login there may print
_OPTIONS = (
    "ControlMaster=no",
    "ControlPath=none",
    "BatchMode=yes",
    "ConnectTimeout=20",
    "ExitOnForwardFailure=yes",
    # A link that is gone is noticed within 15 seconds.
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
)
Forward = tuple[int, int]  # a port that listens, and the one on the other machine that it leads to


class RingWay:
    """An ssh of its own, which lives as long as one attempt of a training."""

    def __init__(self, host: Host, process: Process, errors: IO[bytes]) -> None:
        self._host, self._process, self._errors = host, process, errors

    @property
    def lost(self) -> bool:
        """Whether the connection has ended."""
        return self._process.returncode is not None

    @property
    def reason(self) -> str:
        """What ssh said last."""
        self._errors.seek(0)
        lines = self._errors.read(10_000).decode("utf-8", "replace").strip().splitlines()
        return printable(lines[-1]) if lines else "ssh"

    async def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._errors.close()


async def open_way(host: Host, there: Iterable[Forward], back: Iterable[Forward]) -> RingWay:
    """Return the way, once all ports are joined.

    `there`: ports that listen here and lead to the host's; `back`: ports that listen on the host
    and lead here. Raises Unreachable.
    """
    words = [word for option in _OPTIONS for word in ("-o", option)]
    words += [word for pair in there for word in ("-L", _forward(pair))]
    words += [word for pair in back for word in ("-R", _forward(pair))]
    errors: IO[bytes] = TemporaryFile()  # noqa: SIM115  # closed with the way
    # `cat` ends when this daemon does, however it ends, and the connection with it.
    try:
        process = await asyncio.create_subprocess_exec(
            *("ssh", "-T", *words, host.destination, "--", "cat"),
            stdin=PIPE,
            stdout=PIPE,
            stderr=errors,
        )
    except FileNotFoundError:
        errors.close()
        raise Unreachable("host.no_ssh") from None
    way = RingWay(host, process, errors)
    try:
        async with asyncio.timeout(READY_SECONDS):
            if await _echoes(process):
                return way
    except TimeoutError:
        pass
    except BaseException:
        await way.close()
        raise
    reason = way.reason
    await way.close()
    raise Unreachable("machines.unreachable", machine=host.name, reason=reason)


async def _echoes(process: Process) -> bool:
    """Return whether the other end answers. ssh runs a command only once all ports are joined."""
    assert process.stdin is not None and process.stdout is not None
    word = secrets.token_hex(8).encode()
    with contextlib.suppress(OSError, ValueError):
        process.stdin.write(word + b"\n")
        await process.stdin.drain()
        for _ in range(_MOST_GREETING):
            line = await process.stdout.readline()
            if not line or line.strip() == word:
                return bool(line)
    return False


def _forward(pair: Forward) -> str:
    return f"127.0.0.1:{pair[0]}:127.0.0.1:{pair[1]}"

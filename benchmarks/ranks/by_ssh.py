"""A sum over two ranks on this machine: over bare loopback, and by a real sshd."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from safetrain_shared.remote import host_list
from safetraind.machines.ring_way import open_way
from safetraind.processes.rank_links import free_ports, listens
from tests.remote.studio import running

_SUMS = Path(__file__).with_name("sums.py")
_LOOK_SECONDS = 0.05


def seconds_of_sums(size: int, sums: int) -> tuple[float, float]:
    """Return the seconds of one sum of `size` bytes over two ranks, the least of some: over bare
    loopback, and by ssh there and back.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first, second = free_ports(2)
        bare = _least(folder, [[first, second], [first, second]], size, sums)
        with running(folder):
            return bare, asyncio.run(_by_ssh(folder, size, sums))


async def _by_ssh(folder: Path, size: int, sums: int) -> float:
    first, here, second, back = free_ports(4)
    host, loop = host_list.find("studio"), asyncio.get_running_loop()
    ways = [await open_way(host, [], [(back, first)])]

    def join() -> None:
        opened = open_way(host, [(here, second)], [])
        ways.append(asyncio.run_coroutine_threadsafe(opened, loop).result())

    try:
        rings = [[first, here], [back, second]]
        return await asyncio.to_thread(_least, folder, rings, size, sums, join)
    finally:
        for way in ways:
            await way.close()


def _least(
    folder: Path,
    rings: Sequence[Sequence[int]],
    size: int,
    sums: int,
    join: Callable[[], None] | None = None,
) -> float:
    """`rings`: of each rank, the ports of both as it reaches them. `join` opens the first's way to
    the second, once that one listens.
    """
    first = _rank(folder, 0, rings[0], size, sums)
    _wait_until_listens(first, rings[0][0])
    second = _rank(folder, 1, rings[1], size, sums)
    if join is not None:
        _wait_until_listens(second, rings[1][1])
        join()
    output = first.communicate()[0]
    second.communicate()
    return min(json.loads(output)["seconds"])


def _wait_until_listens(rank: subprocess.Popen[str], port: int) -> None:
    while not listens([psutil.Process(rank.pid)], port):
        time.sleep(_LOOK_SECONDS)


def _rank(
    folder: Path, number: int, ports: Sequence[int], size: int, sums: int
) -> subprocess.Popen[str]:
    hosts = folder / f"hosts{number}.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in ports]))
    return subprocess.Popen(
        [sys.executable, str(_SUMS), str(size // 4), str(sums)],
        env={**os.environ, "MLX_HOSTFILE": str(hosts), "MLX_RANK": str(number)},
        stdout=subprocess.PIPE,
        text=True,
    )


if __name__ == "__main__":
    bare, ssh = seconds_of_sums(int(sys.argv[1]), int(sys.argv[2]))
    print(f"bare loopback {bare:.4f} s, by ssh {ssh:.4f} s; load {os.getloadavg()[0]:.1f}")

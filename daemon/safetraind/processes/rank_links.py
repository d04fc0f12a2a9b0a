"""What joins the ranks of one training: their addresses for MLX's ring, or their devices for JACCL,
and pipes that tell of an end.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import psutil

from safetrain_shared.paths import Home, RunFolder, private
from safetraind.storage.durable import write_text


@dataclass(frozen=True, slots=True)
class RankLink:
    """What the keeper of one rank inherits: descriptors, and an environment that names them."""

    descriptors: tuple[int, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


ALONE = RankLink()  # of a worker that is the only one


@contextlib.contextmanager
def links_between(run: RunFolder, ranks: int) -> Iterator[list[RankLink]]:
    """Yield the links of `ranks` ranks on this machine. The caller's own copies are closed at the
    end; from then on a pipe ends with the worker that writes to it.

    Raises OSError.
    """
    write_text(run.hosts, json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(ranks)]))
    with contextlib.ExitStack() as stack:
        pipes = []
        for _ in range(ranks):
            pipe = os.pipe()
            for descriptor in pipe:
                stack.callback(os.close, descriptor)
            pipes.append(pipe)
        yield [_link(run, number, pipes) for number in range(ranks)]


def _link(run: RunFolder, number: int, pipes: list[tuple[int, int]]) -> RankLink:
    peers = {rank: reading for rank, (reading, _) in enumerate(pipes) if rank != number}
    writing = pipes[number][1]
    environment = {
        "MLX_HOSTFILE": str(run.hosts),
        "MLX_RANK": str(number),
        "SAFETRAIN_RANK_FD": str(writing),
        "SAFETRAIN_PEER_FDS": ",".join(f"{rank}:{fd}" for rank, fd in peers.items()),
    }
    if number and sys.platform != "darwin":
        environment["TMPDIR"] = _own_folder(Home(run.root.parent.parent), number)
    return RankLink((writing, *peers.values()), environment)


def leading_link(run: RunFolder, coordinator: str = "") -> RankLink:
    """Return the link of rank 0, where the others are on other machines. `coordinator`: see
    `_for_mlx`.
    """
    return RankLink((), _for_mlx(run, 0, coordinator))


def lent_link(home: Home, run: RunFolder, number: int, coordinator: str = "") -> RankLink:
    """Return the link of rank `number` of a training that another machine leads. `coordinator`: see
    `_for_mlx`. Raises OSError.
    """
    environment = _for_mlx(run, number, coordinator)
    if sys.platform != "darwin":
        environment["TMPDIR"] = _own_folder(home, number)
    return RankLink((), environment)


def _for_mlx(run: RunFolder, number: int, coordinator: str) -> dict[str, str]:
    """Return what MLX reads of a rank: of its ring, or of JACCL where a `coordinator` is named, the
    address at which rank 0 tells all ranks of one another's devices.
    """
    found = {"MLX_RANK": str(number)}
    if not coordinator:
        return found | {"MLX_HOSTFILE": str(run.hosts)}
    return found | {"MLX_IBV_DEVICES": str(run.hosts), "MLX_JACCL_COORDINATOR": coordinator}


def listens(processes: Iterable[psutil.Process], port: int) -> bool:
    """Return whether one of the processes waits for a connection at that TCP port."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            for one in process.net_connections("tcp"):
                if one.status == psutil.CONN_LISTEN and one.laddr.port == port:
                    return True
    return False


def _own_folder(home: Home, number: int) -> str:
    """Return a temporary folder of a rank. MLX compiles for a CPU into it, without a lock."""
    return str(private(home.root / "ranks" / f"tmp{number}", parents=True))


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody uses now. Raises OSError.

    Where another process takes one before its rank does, the ranks end and are started again.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]

"""How the ranks of one attempt find one another: ports joined by ssh, and what MLX reads. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from safetrain_proto.v1.machines_pb2 import RankGranted
from safetrain_shared.remote.rdma import Devices
from safetraind.machines.ring_way import Forward


@dataclass(frozen=True, slots=True)
class Way:
    """Ports to be joined with the machine of rank `rank`, see `open_way`."""

    rank: int
    there: Sequence[Forward]
    back: Sequence[Forward]


@dataclass(frozen=True, slots=True)
class Layout:
    """`first`: to be opened before any rank starts; `last`: once the last rank listens, None where
    the ranks may start in any order. `port`: at which rank 0 listens. `hosts`: what its MLX reads;
    `addresses`, of the ranks from 1 on, and `devices`: what theirs do, see `RankGo`.
    """

    first: Sequence[Way] = ()
    last: Way | None = None
    port: int = 0
    hosts: str = ""
    addresses: Sequence[Sequence[str]] = ()
    devices: str = ""

    @property
    def coordinator(self) -> str:
        """The address at which rank 0 tells of devices; empty where the ranks make a ring."""
        return _at(self.port) if self.devices else ""


def by_rdma(granted: Sequence[RankGranted], port: int, devices: Devices) -> Layout:
    """Return the layout for JACCL. Each rank finds rank 0, which listens at `port`, and learns of
    the others' devices there; what they sum up does not go that way.
    """
    ways = [Way(rank, [], [(there.next_port, port)]) for rank, there in enumerate(granted, 1)]
    addresses = [[_at(there.next_port)] for there in granted]
    matrix = json.dumps(devices)
    return Layout(ways, None, port, matrix, addresses, matrix)


def by_ring(granted: Sequence[RankGranted], ports: Sequence[int]) -> Layout:
    """Return the layout of MLX's ring.

    Rank 0 listens at the first of `ports`, and reaches rank 1 by the second; each other rank
    reaches the next one by a port on its own machine, which leads here.
    """
    port, *nexts = ports
    after = [*nexts[1:], port]  # where the next rank is reached here
    ways = [
        Way(rank, [(here, there.port)], [(there.next_port, next_here)])
        for rank, (there, here, next_here) in enumerate(
            zip(granted, nexts, after, strict=True), start=1
        )
    ]
    *first, last = _in_order(ways)
    size = len(granted) + 1
    own = _ring(size, 0, port, nexts[0])
    others = [_ring(size, n, there.port, there.next_port) for n, there in enumerate(granted, 1)]
    return Layout(first, last, port, json.dumps([[address] for address in own]), others)


def _in_order(ways: Sequence[Way]) -> list[Way]:
    """Return what to open, last that by which the rank before it reaches the last rank.

    In MLX's ring each rank but the last listens, and looks for the next one when it was found; the
    last one looks for rank 0 first, which begins the round, and then listens. A port that ssh
    forwards takes any connection, and drops it where nobody listens at its end; MLX tries again,
    for half a minute, only where the port itself refuses. So the port by which the last rank is
    reached is opened once that one listens.
    """
    *others, last = ways
    if not others:
        return [replace(last, there=()), replace(last, back=())]
    *others, before = others
    return [*others, last, replace(before, back=()), replace(before, there=())]


def _ring(size: int, rank: int, own: int, following: int) -> list[str]:
    """Return an address for each rank as MLX reads them on one machine. It uses two of them: its
    own, at which it listens, and the next rank's, which stands in all other places too.
    """
    addresses = [_at(following)] * size
    addresses[rank] = _at(own)
    return addresses


def _at(port: int) -> str:
    return f"127.0.0.1:{port}"

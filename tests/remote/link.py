"""Where the other machine's sshd listens: on loopback, or in a network namespace of its own behind
a link of some rate.

SAFETRAIN_LINK: the rate, as `tc` reads it, such as 1gbit. It needs root, and iproute2.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.harness import wait_for

RATE = os.environ.get("SAFETRAIN_LINK", "")


@dataclass(frozen=True)
class Link:
    """How the other machine is reached, and what runs a command there."""

    address: str = "127.0.0.1"
    enter: tuple[str, ...] = ()


@contextmanager
def linked() -> Iterator[Link]:
    """The way to a new machine: its namespace, if it has one, is gone after the block."""
    if not RATE:
        yield Link()
        return
    holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
    try:
        ours, its = Path("/proc/self/ns/net"), Path(f"/proc/{holder.pid}/ns/net")
        wait_for(lambda: its.readlink() != ours.readlink(), what="a namespace")
        yield _joined(holder.pid)
    finally:
        holder.kill()  # the link goes with its namespace
        holder.wait()


def _joined(pid: int) -> Link:
    """A link between this namespace and that of a process, shaped on both ends."""
    net, here, enter = f"10.{64 + pid // 256 % 64}.{pid % 256}", f"link{pid}", _entering(pid)
    _run("ip", "link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    for prefix, device, address in (((), here, f"{net}.1"), (enter, "eth0", f"{net}.2")):
        _run(*prefix, "ip", "addr", "add", f"{address}/30", "dev", device)
        _run(*prefix, "ip", "link", "set", device, "up")
        shape = ("rate", RATE, "burst", "128kb", "latency", "50ms")
        _run(*prefix, "tc", "qdisc", "add", "dev", device, "root", "tbf", *shape)
    _run(*enter, "ip", "link", "set", "lo", "up")
    return Link(f"{net}.2", enter)


def _entering(pid: int) -> tuple[str, ...]:
    return ("nsenter", "-t", str(pid), "-n")


def _run(*command: str) -> None:
    subprocess.run(command, check=True)

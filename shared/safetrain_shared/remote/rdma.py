"""Which RDMA devices join machines: the host file that MLX's `mlx.distributed_config` writes."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetrain_shared.errors import InvalidInput
from safetrain_shared.remote import host_list
from safetrain_shared.remote.host_list import Host

# For each rank, the device by which it reaches each other one; None in its own place.
Devices = list[list[str | None]]
_DEVICE = re.compile(r"rdma_[A-Za-z0-9]{1,32}")
_HERE = ("localhost", "127.0.0.1", "::1")


def path() -> Path:
    """Return the path of the host file, beside the list of hosts."""
    return host_list.path().with_name("jaccl.json")


def between(others: Sequence[Host]) -> Devices | None:
    """Return the devices between this machine, which is first, and `others`, each pair of which is
    joined; None where there is no host file or it does not say that.

    Raises InvalidInput for a damaged file.
    """
    file = path()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        listed = content["hosts"] if isinstance(content, Mapping) else content
        names = [str(one["ssh"]) for one in listed]
        rows = [_row(one.get("rdma") or [], len(listed)) for one in listed]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInput("hosts.unreadable", path=str(file), reason=repr(error)) from None
    places = [_place(names, host) for host in others]
    here = _own_place(names, places)
    if here is None or None in places:
        return None
    order = [here, *(place for place in places if place is not None)]
    found = [[rows[one][other] for other in order] for one in order]
    joined = (found[n][m] for n in range(len(order)) for m in range(len(order)) if n != m)
    return found if all(joined) else None


def _row(devices: Sequence[Any], machines: int) -> list[str | None]:
    """Return the first device to each machine. Raises ValueError where a name is none."""
    firsts = [one[0] if isinstance(one, list) and one else one or None for one in devices]
    for name in filter(None, firsts):
        if not _DEVICE.fullmatch(name):
            raise ValueError(name)
    if len(firsts) != machines:
        return [None] * machines
    return firsts


def _place(names: Sequence[str], host: Host) -> int | None:
    own = {_plain(host.name), _plain(host.destination)}
    return next((n for n, name in enumerate(names) if _plain(name) in own), None)


def _own_place(names: Sequence[str], others: Sequence[int | None]) -> int | None:
    """Return where this machine stands: under a name of its own, or as the only one left."""
    own = {*_HERE, _plain(platform.node())}
    left = [n for n in range(len(names)) if n not in others]
    named = [n for n in left if _plain(names[n]) in own]
    return next(iter(named), left[0] if len(left) == 1 else None)


def _plain(name: str) -> str:
    """Return a machine's name without user and `.local`, which Bonjour adds."""
    return name.rpartition("@")[2].lower().removesuffix(".local")

"""The named hosts of the user: a small JSON file that `safetrain hosts` keeps."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetrain_shared.errors import InvalidInput, NotFound

FORMAT = 1
COMMAND = "safetraind"
ANY = "any"  # in place of a name: the host that would end a training soonest
# What `ssh` takes as a destination, without what it or a shell would take for something else.
_DESTINATION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:%\[\]/+-]{0,253}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Host:
    """A machine on which a daemon runs.

    `destination`: what ssh is given, such as `ana@studio` or a name of ~/.ssh/config. `command`:
    what starts `safetraind` there, as a shell reads it.
    """

    name: str
    destination: str
    command: str = COMMAND


def path() -> Path:
    """Return the file's path, below `$XDG_CONFIG_HOME` or ~/.config."""
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "safetrain" / "hosts.json"


def read() -> dict[str, Host]:
    """Return the hosts by name, in the file's order. Raises InvalidInput for a damaged file."""
    file = path()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidInput("hosts.unreadable", path=str(file), reason=str(error)) from None
    if isinstance(content, Mapping) and content.get("format", FORMAT) != FORMAT:
        found = str(content["format"])
        raise InvalidInput("file.newer", path=str(file), found=found, known=FORMAT)
    try:
        hosts = [
            _checked(Host(**{str(k): str(v) for k, v in one.items()})) for one in content["hosts"]
        ]
    except (TypeError, KeyError, AttributeError) as error:
        raise InvalidInput("hosts.unreadable", path=str(file), reason=str(error)) from None
    return {host.name: host for host in hosts}


def add(host: Host) -> None:
    """Keep `host` under its name; one of that name is replaced. Raises InvalidInput."""
    _write({**read(), _checked(host).name: host})


def remove(name: str) -> None:
    """Forget the host. Raises NotFound."""
    hosts = read()
    if name not in hosts:
        raise NotFound("hosts.unknown", name=name)
    del hosts[name]
    _write(hosts)


def find(name: str) -> Host:
    """Return the host of that name, else one that ssh knows by it. Raises InvalidInput."""
    if name == ANY:
        raise InvalidInput("host.any")
    return read().get(name) or _checked(Host(name, name), named=False)


def _checked(host: Host, *, named: bool = True) -> Host:
    if named and (host.name == ANY or not _NAME.fullmatch(host.name)):
        raise InvalidInput("hosts.name", name=host.name)
    if not _DESTINATION.fullmatch(host.destination):
        raise InvalidInput("hosts.destination", destination=host.destination)
    if not host.command.strip() or not host.command.isprintable():
        raise InvalidInput("hosts.command", name=host.name)
    return host


def _write(hosts: Mapping[str, Host]) -> None:
    from safetrain_shared.atomic_write import write_files  # takes longer than the rest of a command

    content = {"format": FORMAT, "hosts": [asdict(host) for host in hosts.values()]}
    write_files({path(): (json.dumps(content, indent=2) + "\n").encode()})

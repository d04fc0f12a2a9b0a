"""What to do about a host without safetrain, or with another version: the command that installs it.

What a version can do is told by its calls (`Info.methods`), not by its number: versions that differ
work together as long as each takes what the other asks.
"""

from __future__ import annotations

import re
import shlex
from importlib.metadata import version

from safetrain_proto.v1.control_pb2 import InfoResponse
from safetrain_shared.errors import Incompatible
from safetrain_shared.known_methods import known_methods
from safetrain_shared.remote.host_list import Host

_IN_BIN = re.compile(r"(?P<folder>~?[\w@%+=:,./-]*/)(safetraind|python[\d.]*)", re.ASCII)


def install_command(host: Host, *, anew: bool = False) -> str:
    """Return the command that puts this version on the host and restarts its daemon, if one runs.

    Into the environment that the host's command names, else by pipx. `anew`: the program that the
    command names is not there.
    """
    package = f"'safetrain[daemon]=={version('safetrain')}'"
    found = next(filter(None, map(_IN_BIN.fullmatch, shlex.split(host.command))), None)
    folder = found["folder"] if found and not anew else ""
    install = f"{folder}python -m pip install" if folder else "pipx install --force"
    there = f"{install} {package} && {folder}safetraind restart"
    return f'ssh {host.destination} "{there}"'


def not_taken(host: Host, feature: str, info: InfoResponse) -> Incompatible:
    """Return the error for a call that the host's daemon does not take: which side is outdated.

    `feature`: the call. `info`: what that daemon says of itself; empty where it does not even that.
    """
    own = version("safetrain")
    args = {"host": host.name, "feature": feature, "daemon": info.version or "?", "own": own}
    if set(info.methods) - known_methods():
        return Incompatible("host.newer", **args)
    return Incompatible("host.older", command=install_command(host), **args)


def missing(host: Host, info: InfoResponse) -> Incompatible | None:
    """Return the error for a daemon that lacks calls which this version makes; None: it has all."""
    lacking = sorted(known_methods() - set(info.methods))
    if not lacking:
        return None
    return not_taken(host, lacking[0].removeprefix("safetrain.v1."), info)

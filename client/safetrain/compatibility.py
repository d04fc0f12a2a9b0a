"""Finds out which of client and daemon is outdated when a call is not implemented."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from safetrain_proto.v1.control_pb2 import InfoResponse
from safetrain_shared.errors import Incompatible
from safetrain_shared.known_methods import known_methods


def explained(method: Any, info: InfoResponse) -> Incompatible:
    """Return the error for a call that the daemon does not implement, with what to do.

    `method`: gRPC's callable. A daemon with calls that this client does not know is newer, so the
    client must be upgraded; otherwise the daemon is older and must be restarted.
    """
    feature = feature_of(method)
    if set(info.methods) - known_methods():
        own = version("safetrain")
        return Incompatible("client.outdated", feature=feature, daemon=info.version, own=own)
    return Incompatible("daemon.incompatible", feature=feature)


def feature_of(method: Any) -> str:
    """Return the name of a call, such as Files/Look. `method`: gRPC's callable."""
    path = getattr(method, "_method", b"")  # gRPC has no public name for it
    name = (path.decode() if isinstance(path, bytes) else str(path)).lstrip("/")
    return name.rpartition(".")[2] or "?"

"""Finds out which of client and daemon is outdated when a call is not implemented."""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import version
from typing import Any

import safetrain_proto.v1
from safetrain_proto.v1.control_pb2 import InfoResponse
from safetrain_shared.errors import Incompatible


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


def known_methods() -> set[str]:
    """Return the names of all calls of this client's protocol, in the form of `Info.methods`."""
    folder = safetrain_proto.v1.__path__
    names = (module.name for module in pkgutil.iter_modules(folder) if module.name.endswith("_pb2"))
    files = (importlib.import_module(f"safetrain_proto.v1.{name}").DESCRIPTOR for name in names)
    return {
        f"{service.full_name}/{method.name}"
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
    }

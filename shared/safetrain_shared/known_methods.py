"""The calls of this version's protocol."""

from __future__ import annotations

import importlib
import pkgutil

import safetrain_proto.v1


def known_methods() -> set[str]:
    """Return the names of all calls of this version's protocol, in the form of `Info.methods`."""
    folder = safetrain_proto.v1.__path__
    names = (module.name for module in pkgutil.iter_modules(folder) if module.name.endswith("_pb2"))
    files = (importlib.import_module(f"safetrain_proto.v1.{name}").DESCRIPTOR for name in names)
    return {
        f"{service.full_name}/{method.name}"
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
    }

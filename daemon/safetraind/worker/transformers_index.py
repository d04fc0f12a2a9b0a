"""transformers' index of its own modules, kept on disk: it reads 3,000 files for it at each import.

With it mlx-lm is imported in 0.45 s of processor time, without it in 0.98 s (transformers 5.24, two
cores of a server). What is kept is what transformers computed, in Python's own form for `.pyc`
files, below a digest; where anything is in doubt it computes the index itself, as always.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.machinery
import marshal
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from safetrain_shared.paths import default_home

_MODULE = "transformers.utils.import_utils"
_FUNCTION = "create_import_structure_from_path"
_DIGEST_BYTES = hashlib.sha256().digest_size

Index = dict[Any, Any]


def keep_on_disk() -> None:
    """From now on, an import of transformers reads its index of modules from this machine's disk.

    To be called before that import. Does nothing else: no module is imported by it.
    """
    sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds one module, and replaces one function of it once it has run; then it is gone."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_and_replace(module: ModuleType) -> None:
            run(module)
            if computed := getattr(module, _FUNCTION, None):
                setattr(module, _FUNCTION, _kept(computed))

        spec.loader.exec_module = run_and_replace  # type: ignore[method-assign]
        return spec


def _kept(computed: Callable[[Any], Index]) -> Callable[[Any], Index]:
    """Return `computed` (a folder or its `__init__.py` → index), kept for the folder `models`.

    transformers asks for that one twice, under both names, and for small ones inside it.
    """

    def index(module_path: Any) -> Index:
        folder = Path(module_path)
        folder = folder.parent if folder.is_file() else folder
        if folder.name != "models":
            return computed(module_path)
        file = _file_for(folder)
        found = read(file)
        if found is None:
            found = computed(module_path)
            write(file, found)
        return found

    return index


def _file_for(models: Path) -> Path:
    """Return the file that keeps the index of the folder `models` as it is now, in this Python.

    Its name changes with the folder's path, the names of the folders in it, and the time of its
    `__init__.py`, which an upgrade replaces. The times of the folders change as Python keeps
    bytecode in them.
    """
    names = sorted(entry.name for entry in os.scandir(models) if entry.name != "__pycache__")
    state = f"{models} {(models / '__init__.py').stat().st_mtime_ns} {' '.join(names)}"
    key = hashlib.sha256(state.encode()).hexdigest()[:16]
    tag = sys.implementation.cache_tag
    return default_home() / "cache" / f"transformers-index-{tag}-{key}"


def read(file: Path) -> Index | None:
    """Return the index in `file`; None where it can't be read or isn't whole."""
    try:
        content = file.read_bytes()
        digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            return None
        found = marshal.loads(body)
    except (OSError, ValueError, EOFError, TypeError):
        return None
    return found if isinstance(found, dict) else None


def write(file: Path, index: Index) -> None:
    """Write `index` for `read`, whole or not at all. A folder that can't be written is no error."""
    with contextlib.suppress(OSError, ValueError):
        body = marshal.dumps(index)
        file.parent.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.parent.mkdir(exist_ok=True, mode=0o700)
        new = file.with_name(f"{file.name}.{os.getpid()}.new")
        new.write_bytes(hashlib.sha256(body).digest() + body)
        new.replace(file)

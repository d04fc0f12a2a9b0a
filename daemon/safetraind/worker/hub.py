"""Downloads a model repository of the hub, with an error code for each way it can fail."""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    DryRunError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from mlx_lm.utils import DEFAULT_ALLOW_PATTERNS

from safetrain_shared.errors import NoRoom, NotAllowed, NotFound, SafetrainError, Unreachable
from safetrain_shared.paths import nearest_existing

_STALE_SECONDS = 3600.0


def snapshot(repository: str) -> Path:
    """Return the folder of `repository` (`ORG/NAME`), downloading files that are not cached yet.

    These are the files that mlx-lm loads: weights only as safetensors. Complete files are not
    downloaded again; an incomplete one is not continued. Raises NotFound, NotAllowed (gated or
    private), Unreachable, NoRoom.
    """
    remove_stale_parts(repository)
    try:
        return Path(snapshot_download(repository, allow_patterns=DEFAULT_ALLOW_PATTERNS))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise _explained(error, repository) from error


def tokenizer_files(repository: str) -> Path:
    """Return a folder with the configuration and the tokenizer of `repository`, without weights.

    Raises as `snapshot` does.
    """
    patterns = [p for p in DEFAULT_ALLOW_PATTERNS if "safetensors" not in p]
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise _explained(error, repository) from error


def data_set_names(repository: str) -> list[str]:
    """Return the names of all files of a data set of the hub. Raises as `snapshot` does.

    Where the hub does not answer, they are those in the cache.
    """
    try:
        files = snapshot_download(repository, repo_type="dataset", dry_run=True)
        return [file.filename for file in files]
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        known = _explained(error, repository, data_set=True)
        if not isinstance(known, Unreachable):
            raise known from error
        names = _cached_names(repository)
        if not names:
            raise known from error
        return names


def _cached_names(repository: str) -> list[str]:
    """Return the files of a data set that are in the cache, where it may be incomplete."""
    cache = Path(constants.HF_HUB_CACHE).expanduser()
    folder = cache / f"datasets--{repository.replace('/', '--')}"
    try:
        snapshot = folder / "snapshots" / (folder / "refs" / "main").read_text("ascii").strip()
    except OSError:
        return []
    return [f.relative_to(snapshot).as_posix() for f in snapshot.rglob("*") if f.is_file()]


def data_set_snapshot(repository: str, names: Sequence[str]) -> Path:
    """Return the folder of a data set, downloading those of the files `names` that are not cached.

    Raises as `snapshot` does, and NoRoom where the cache's disk has too little space.
    """
    patterns = list(names)
    try:
        with contextlib.suppress(DryRunError):  # no answer: they may all be in the cache
            files = snapshot_download(
                repository, repo_type="dataset", allow_patterns=patterns, dry_run=True
            )
            _check_room(sum(file.file_size or 0 for file in files if file.will_download))
        return Path(snapshot_download(repository, repo_type="dataset", allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise _explained(error, repository, data_set=True) from error


def bytes_to_download(repository: str) -> int:
    """Return the bytes of `repository` that are not cached yet; a file of unknown size counts 0.

    Raises as `snapshot` does, and NoRoom where the cache's disk has too little space.
    """
    try:
        files = snapshot_download(repository, allow_patterns=DEFAULT_ALLOW_PATTERNS, dry_run=True)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise _explained(error, repository) from error
    needed = sum(file.file_size or 0 for file in files if file.will_download)
    _check_room(needed)
    return needed


def _check_room(needed: int) -> None:
    free = shutil.disk_usage(nearest_existing(Path(constants.HF_HUB_CACHE).expanduser())).free
    if free < needed:
        raise NoRoom("disk.no_room_for_model", free=free, needed=needed)


def bytes_in_cache(repository: str) -> int:
    """Return the bytes of `repository` in the cache, including those of unfinished files."""
    sizes = []
    for file in _blobs(repository).glob("*"):
        try:
            sizes.append(file.stat().st_size)
        except OSError:  # renamed meanwhile
            continue
    return sum(sizes)


def remove_stale_parts(repository: str) -> None:
    """Remove the unfinished files of killed downloads, which huggingface_hub never continues.

    A file that was written to within the last hour is kept: its download may still run.
    """
    for part in _blobs(repository).glob("*.incomplete"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _STALE_SECONDS:
                part.unlink()


def _blobs(repository: str) -> Path:
    cache = Path(constants.HF_HUB_CACHE).expanduser()
    return cache / f"models--{repository.replace('/', '--')}" / "blobs"


def _explained(error: Exception, repository: str, *, data_set: bool = False) -> SafetrainError:
    """Return the error for one of the hub's, subclasses before their base classes."""
    offline = "prepare.hub_offline" if data_set else "model.hub_offline"
    if isinstance(error, DryRunError):
        cause = error.__cause__
        if isinstance(cause, GatedRepoError | RepositoryNotFoundError):
            return _explained(cause, repository, data_set=data_set)
        return Unreachable(offline, repository=repository)
    if isinstance(error, GatedRepoError):
        return NotAllowed("model.hub_gated", repository=repository)
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        unknown = "prepare.hub_unknown" if data_set else "model.hub_unknown"
        return NotFound(unknown, repository=repository)
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled | ConnectionError):
        return Unreachable(offline, repository=repository)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return NoRoom("disk.full", path=repository)
    return Unreachable("model.hub_failed", repository=repository, reason=type(error).__name__)

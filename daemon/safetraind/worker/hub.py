"""Brings a model repository of the hub onto this machine, with sentences for what can go wrong."""

from __future__ import annotations

import errno
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from mlx_lm.utils import DEFAULT_ALLOW_PATTERNS

from safetrain_shared.errors import NoRoom, NotAllowed, NotFound, SafetrainError, Unreachable


def snapshot(repository: str) -> Path:
    """Return the folder of `repository` (`ORG/NAME`), downloading what is not in the cache yet.

    Exactly the files that mlx-lm loads: weights only as safetensors. Raises NotFound, NotAllowed
    (gated or private), Unreachable, NoRoom.
    """
    try:
        return Path(snapshot_download(repository, allow_patterns=DEFAULT_ALLOW_PATTERNS))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise _explained(error, repository) from error


def _explained(error: Exception, repository: str) -> SafetrainError:
    """The most particular meaning first: the hub's errors are subclasses of one another."""
    if isinstance(error, GatedRepoError):
        return NotAllowed("model.hub_gated", repository=repository)
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return NotFound("model.hub_unknown", repository=repository)
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled | ConnectionError):
        return Unreachable("model.hub_offline", repository=repository)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return NoRoom("disk.full", path=repository)
    return Unreachable("model.hub_failed", repository=repository, reason=type(error).__name__)

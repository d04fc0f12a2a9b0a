"""Typed definitions as JSON values and back: on the disk, in SQLite, and between daemon and worker.

The dataclasses in `settings`, `jobs`, `events` and `findings` are the definitions; msgspec converts
them, field by field, by their annotations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Return `value` as `json.dumps` takes it: dicts for dataclasses, strings for enums."""
    return msgspec.to_builtins(value, enc_hook=_enc_hook)


def from_plain(data: Any, cls: type[T]) -> T:
    """Return a `cls` from JSON values.

    Fields that `cls` does not have are ignored, as a newer version may have written them; missing
    ones take their default. Raises ValueError, naming the place, for a missing field without a
    default or a value of another type.
    """
    return msgspec.convert(data, cls)


def _enc_hook(value: Any) -> Any:
    """Convert read-only mappings, which msgspec does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    raise NotImplementedError

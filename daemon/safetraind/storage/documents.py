"""JSON documents on the disk: each the fields of one definition and the number of its `format`.

A definition names its format as `FORMAT`. The number rises when an older version would misread the
file; a field that is only added keeps it. A file without the number is of format 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from safetrain_shared.codec import from_plain, to_plain
from safetrain_shared.errors import Incompatible
from safetraind.storage.durable import read_json, write_json


class Definition(Protocol):
    """A dataclass that is the content of a file."""

    FORMAT: ClassVar[int]
    __dataclass_fields__: ClassVar[dict[str, Any]]


D = TypeVar("D", bound=Definition)


def read(path: Path, cls: type[D]) -> D | None:
    """Return the document at `path`; None where there is none that can be read.

    Raises Incompatible for a format of a newer version.
    """
    try:
        return parse(read_json(path), cls, str(path))
    except (ValueError, RecursionError):
        return None


def read_known(path: Path, cls: type[D]) -> D | None:
    """Read a document as `read` does; None for a file of a newer version too, because the caller
    can do without it.
    """
    try:
        return read(path, cls)
    except Incompatible:
        return None


def write(path: Path, value: Definition) -> None:
    """Replace the document at `path`, but keep fields of a newer version in it. Raises OSError."""
    write_json(path, to_json(value, read_json(path)))


def parse(data: Any, cls: type[D], path: str) -> D:
    """Return the definition in a JSON value; `path` names it in errors.

    Raises Incompatible for a format of a newer version, ValueError where `data` is no `cls`.
    """
    if isinstance(data, Mapping):
        check_format(data, cls.FORMAT, path)
    return from_plain(data, cls)


def check_format(data: Mapping[str, Any], known: int, path: Path | str) -> None:
    """Raise Incompatible unless the `format` of a document is one of 1 to `known`."""
    found = data.get("format", 1)
    if not isinstance(found, int) or not 0 < found <= known:
        raise Incompatible("file.newer", path=str(path), found=str(found), known=known)


def to_json(value: Definition, old: Any = None) -> dict[str, Any]:
    """Return the JSON object of a document, with the fields of `old` that only a newer version
    knows.
    """
    return {"format": value.FORMAT, **_with_unknown(value, old)}


def _with_unknown(value: Any, old: Any) -> dict[str, Any]:
    """Add the fields of `old` that the definition does not have, in nested definitions too."""
    plain: dict[str, Any] = to_plain(value)
    names = {field.name for field in dataclasses.fields(value)}
    for name, part in old.items() if isinstance(old, Mapping) else ():
        if name not in names:
            plain[name] = part
        elif dataclasses.is_dataclass(getattr(value, name)):
            plain[name] = _with_unknown(getattr(value, name), part)
    plain.pop("format", None)
    return plain

"""Data sets of the hub: `hf:OWNER/NAME`, or `hf:OWNER/NAME/FILE` for one file or folder of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from safetrain_shared.errors import InvalidInput
from safetraind.worker.hub import data_set_names, data_set_snapshot
from safetraind.worker.prepare.read_rows import KINDS

PREFIX = "hf:"
# The same data often lies there in several forms: the first of these that is there is read.
_PREFERRED = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".xlsx", ".txt", ".md")
_TRAIN = re.compile(r"(^|[/_.-])train", re.IGNORECASE)
_HELD_OUT = re.compile(r"(^|[/_.-])(test|valid|validation|dev|eval)", re.IGNORECASE)
_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:/(.+))?")


def download(name: str) -> list[tuple[str, Path]]:
    """Download the files that `hf:…` stands for. Return each with its name for the user.

    Raises InvalidInput for a name of another form and for a data set without a file that can be
    read, and what `hub.data_set_snapshot` raises.
    """
    found = _NAME.fullmatch(name.removeprefix(PREFIX))
    if found is None:
        raise InvalidInput("prepare.hub_name", name=name)
    repository, wanted = found[1], (found[2] or "").strip("/")
    names = chosen(data_set_names(repository), wanted)
    if not names:
        raise InvalidInput("prepare.hub_no_data", name=name)
    folder = data_set_snapshot(repository, names)
    return [(f"{PREFIX}{repository}/{file}", folder / file) for file in names]


def chosen(names: Iterable[str], wanted: str = "") -> Sequence[str]:
    """Return the files of a data set to read.

    They are those of `wanted` (a file or a folder), else those for training, in one form. Files
    whose names say test or validation are left out.
    """
    known = [n for n in sorted(names) if Path(n).suffix.lower() in KINDS and not _is_about(n)]
    if wanted:
        known = [n for n in known if n == wanted or n.startswith(f"{wanted}/")]
    else:
        known = [n for n in known if not _HELD_OUT.search(n)]
        known = [n for n in known if _TRAIN.search(n)] or known
    for suffix in _PREFERRED:
        if of_form := [n for n in known if Path(n).suffix.lower() == suffix]:
            return of_form
    return known


def _is_about(name: str) -> bool:
    """Return whether a file describes the data set instead of holding its data."""
    return name.lower() in ("readme.md", "license.txt", "license.md", "dataset_infos.json")

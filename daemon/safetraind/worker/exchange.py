"""The files between the daemon and an ephemeral worker: a request, lines, and a result."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from safetrain_shared.codec import from_plain, to_plain
from safetrain_shared.errors import NoRoom, SafetrainError, error_to_dict
from safetrain_shared.paths import RunFolder
from safetraind.storage.durable import read_file, write_json

T = TypeVar("T")

Tell = Callable[[Any], None]
"""Writes one line, a dataclass of `worker_messages`; fields that are None are left out."""


def read_request(folder: str, role: str, cls: type[T]) -> T:
    """Return the request in a run folder. Raises OSError, and ValueError where it is not valid."""
    return from_plain(json.loads(read_file(Path(folder) / f"{role}_request.json")), cls)


def answer(folder: str, work: Callable[[Tell], Any], *, output: str = "") -> None:
    """Do the work, and write its result, or the SafetrainError that it raises.

    `output`: where it writes; an OSError is then answered as NoRoom. Any other error is raised: the
    worker then ends without a result.
    """
    run = RunFolder(Path(folder))
    with run.partial.open("w", encoding="utf-8") as file:

        def tell(line: Any) -> None:
            plain = {name: value for name, value in to_plain(line).items() if value is not None}
            file.write(json.dumps(plain, ensure_ascii=False) + "\n")
            file.flush()

        try:
            result = to_plain(work(tell))
        except SafetrainError as error:
            result = {"error": error_to_dict(error)}
        except OSError as error:
            if not output:
                raise
            result = {"error": error_to_dict(disk_error(error, output))}
    write_json(run.probe, result)


def disk_error(error: OSError, path: str) -> NoRoom:
    """Return the error of a full or refusing disk; `path`: where the system names none."""
    if error.errno == errno.ENOSPC:
        return NoRoom("disk.full", path=path)
    path, reason = str(error.filename or path), error.strerror or str(error)
    return NoRoom("disk.refused", path=path, reason=reason)

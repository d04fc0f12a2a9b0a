"""Reading training files line by line, in flat memory, whatever is in them.

Only regular files are read, and only as far as they reached when they were opened: a file that
grows meanwhile gives the lines it had. A line that no memory should hold is skipped and named.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from safetrain_shared.errors import InvalidInput, NotAllowed, NotFound

# About half a million tokens, far more than is ever trained at once. Parsed, a line may take forty
# times its bytes, so this is also what keeps `validate` below 200 MB.
MAX_LINE_BYTES = 2 << 20
_BUFFER_BYTES = 1 << 18
_BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Line:
    """One line with its end. `too_long`: bytes of a line above MAX_LINE_BYTES, whose content is
    left out; else 0.
    """

    number: int
    content: bytes
    too_long: int = 0


class Corpus:
    """An open training file. `done` and `size` are bytes, and show the progress of reading."""

    def __init__(self, path: str) -> None:
        """Open `path`. Raises NotFound, NotAllowed or InvalidInput with the path in it."""
        self.path = path
        self._file = _open(path)
        self.size = os.fstat(self._file.fileno()).st_size
        self.done = 0
        self.had_bom = False

    def __enter__(self) -> Corpus:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def grew(self) -> bool:
        """Whether the file's size has changed since it was opened."""
        return os.fstat(self._file.fileno()).st_size != self.size

    def head(self) -> bytes:
        """Return the first MAX_LINE_BYTES of the file, without a byte order mark. Call it before
        reading lines.
        """
        content = self._file.read(min(MAX_LINE_BYTES, self.size))
        self._file.seek(0)
        return content.removeprefix(_BOM)

    def __iter__(self) -> Iterator[Line]:
        """Yield the lines, numbered from 1. A byte order mark at the beginning is removed and
        remembered.
        """
        number, read = 0, self._file.readline
        while self.done < self.size:
            content = read(MAX_LINE_BYTES)
            if not content:
                return
            number += 1
            self.done += len(content)
            if self.done > self.size:  # it grew meanwhile
                content = content[: self.size - self.done]
                self.done = self.size
            elif (
                len(content) == MAX_LINE_BYTES
                and not content.endswith(b"\n")
                and self.done < self.size
            ):
                yield Line(number, b"", too_long=len(content) + self._skip_rest())
                continue
            if number == 1 and content.startswith(_BOM):
                self.had_bom, content = True, content[len(_BOM) :]
            yield Line(number, content)

    def _skip_rest(self) -> int:
        """Read on to the end of a line that is too long. Return the bytes skipped."""
        start = self.done
        while self.done < self.size:
            piece = self._file.readline(min(_BUFFER_BYTES, self.size - self.done))
            self.done += len(piece)
            if not piece or piece.endswith(b"\n"):
                break
        return self.done - start


def _open(path: str) -> BinaryIO:
    """Open a file without blocking: a FIFO without a writer would block for ever."""
    try:
        found = Path(path).stat()
        if not stat.S_ISREG(found.st_mode):
            raise InvalidInput("path.not_a_file", path=path)
        return Path(path).open("rb", buffering=_BUFFER_BYTES)
    except FileNotFoundError:
        raise NotFound("path.missing", path=path) from None
    except PermissionError as error:
        raise NotAllowed("path.unreadable", path=path, reason=error.strerror) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInput("path.unreadable", path=path, reason=reason) from None

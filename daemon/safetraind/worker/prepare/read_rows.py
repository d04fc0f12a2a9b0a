"""Reads rows from the files people have: JSON lines, JSON, CSV, TSV, Excel, Parquet and texts.

Every reader goes row by row, so that a file larger than memory works. Excel and Parquet need the
extra `prepare`.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import orjson

from safetrain_shared.errors import InvalidInput, NotAllowed, NotFound, Unreachable

_SNIFFED_CHARACTERS = 1 << 16
_DELIMITERS = ",;\t|"
_CHUNK = 1 << 20
_MOST_DOCUMENT = 64 << 20  # characters of one value in a JSON document
_CHAT_KEYS = {"messages", "conversations", "conversation"}
# A document that is a list itself, or that holds one of objects.
_BEGIN = re.compile(r"^\s*\[|\[\s*(?=\{)")
_DECLARED_DELIMITER = re.compile(r"\ufeff?sep=(.)\r?\n", re.IGNORECASE)
_TEXTS = (".txt", ".md", ".markdown")
_JSON = (".json", ".jsonl", ".ndjson")
# What is read, by the ends of its names.
KINDS = frozenset({*_TEXTS, *_JSON, ".csv", ".tsv", ".xlsx", ".xlsm", ".parquet"})


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source. `place` counts from 1: a line, a record, or a file of a folder."""

    place: int
    value: Any


class Source:
    """One file, or a folder of texts. `encoding` and `delimiter` are known once it was opened.

    `name`: the source's name in findings, by default its path.
    """

    def __init__(self, path: str, name: str = "") -> None:
        self.path = Path(path)
        self.name = name or path
        self.encoding = ""
        self.delimiter = ""

    def rows(self) -> Iterator[Row]:
        """Yield the rows. Raises NotFound, NotAllowed, InvalidInput, and Unreachable without the
        extra.
        """
        try:
            yield from self._rows()
        except FileNotFoundError:
            raise NotFound("path.missing", path=self.name) from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise NotAllowed("path.unreadable", path=self.name, reason=reason) from None
        except (csv.Error, UnicodeDecodeError) as error:
            raise self._unreadable(str(error)) from None

    def _rows(self) -> Iterator[Row]:
        suffix = self.path.suffix.lower()
        if self.path.is_dir():
            return _texts(self.path)
        if suffix in (".csv", ".tsv"):
            return self._csv()
        if suffix in (".xlsx", ".xlsm"):
            return self._excel()
        if suffix == ".parquet":
            return self._parquet()
        if suffix in _TEXTS:
            return iter([Row(1, {"text": self._read()})])
        if suffix in _JSON:
            return self._json()
        raise InvalidInput("prepare.unknown_kind", path=self.name, kind=suffix or "?")

    def _open(self) -> TextIO:
        """Open the file as UTF-8 (with or without a byte order mark), UTF-16 with one, else
        Windows-1252.
        """
        with self.path.open("rb") as file:
            head = file.read(4)
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            self.encoding = "utf-16"
        elif not self.encoding:
            self.encoding = "utf-8-sig" if _is_utf8(self.path) else "cp1252"
        return self.path.open(encoding=self.encoding, newline="")

    def _read(self) -> str:
        with self._open() as file:
            return file.read()

    def _csv(self) -> Iterator[Row]:
        csv.field_size_limit(_MOST_DOCUMENT)
        with self._open() as file:
            sample = file.read(_SNIFFED_CHARACTERS)
            file.seek(0)
            if declared := _DECLARED_DELIMITER.match(sample):  # which Excel writes and reads
                self.delimiter = declared[1]
                file.readline()
            elif self.path.suffix.lower() == ".tsv":
                self.delimiter = "\t"
            else:
                self.delimiter = _delimiter(sample)
            reader = csv.reader(file, delimiter=self.delimiter, strict=True)
            head = _names(next(reader, ()))
            for cells in reader:
                if cells:
                    yield Row(reader.line_num, dict(zip(head, cells, strict=False)))

    def _excel(self) -> Iterator[Row]:
        try:
            import openpyxl
        except ImportError:
            raise Unreachable("prepare.extra_missing", name="openpyxl") from None
        try:
            book = openpyxl.load_workbook(self.path, read_only=True, data_only=True)
        except OSError:
            raise
        except Exception as error:  # a damaged zip or XML raises whatever its reader does
            raise self._unreadable(type(error).__name__) from None
        lines = book.worksheets[0].iter_rows(values_only=True)
        head = _names(next(lines, ()))
        for place, cells in enumerate(lines, 2):
            values = dict(zip(head, cells, strict=False))
            if any(value is not None for value in values.values()):
                yield Row(place, {k: v for k, v in values.items() if k})

    def _parquet(self) -> Iterator[Row]:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise Unreachable("prepare.extra_missing", name="pyarrow") from None
        place = 0
        try:
            for batch in pyarrow.parquet.ParquetFile(self.path).iter_batches(1024):
                for value in batch.to_pylist():
                    place += 1
                    yield Row(place, value)
        except pyarrow.ArrowException as error:
            raise self._unreadable(str(error).splitlines()[0]) from None

    def _json(self) -> Iterator[Row]:
        """Yield the rows of JSON lines, of one list of records, or of an object that holds such a
        list.
        """
        return self._document() if self._is_document() else self._lines()

    def _is_document(self) -> bool:
        """Return whether the file is one JSON value.

        It is if it is a list, an object over several lines, or one object on one line that holds a
        list of records and is no record itself.
        """
        with self._open() as file:
            filled = (line for line in file if line.strip())
            first, second = next(filled, ""), next(filled, "")
        if first.lstrip().startswith("["):
            return True
        try:
            value = json.loads(first)
        except (ValueError, RecursionError):
            return first.lstrip().startswith("{") and not second.lstrip().startswith("{")
        if second or not isinstance(value, dict) or _CHAT_KEYS & value.keys():
            return False
        return any(_is_list_of_records(part) for part in value.values())

    def _lines(self) -> Iterator[Row]:
        with self._open() as file:
            for place, line in enumerate(file, 1):
                if line.strip():
                    yield Row(place, _loads(line))

    def _document(self) -> Iterator[Row]:
        with self._open() as file:
            try:
                for place, value in enumerate(_values(file), 1):
                    yield Row(place, value)
            except (ValueError, RecursionError) as error:
                raise self._unreadable(str(error)) from None

    def _unreadable(self, reason: str) -> InvalidInput:
        return InvalidInput("path.unreadable", path=self.name, reason=reason)


def _loads(line: str) -> Any:
    """Return the JSON value of a line; None where there is none. Python's own parser accepts NaN
    too.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            value = json.loads(line)
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
        except (ValueError, RecursionError):
            return None
        return value


def _texts(folder: Path) -> Iterator[Row]:
    """Yield the texts of a folder and those below it, in the order of their names."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _TEXTS and p.is_file())
    for place, path in enumerate(files, 1):
        yield Row(place, {"text": Source(str(path))._read()})


def _is_utf8(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            while file.read(_CHUNK):
                pass
    except UnicodeDecodeError:
        return False
    return True


def _delimiter(sample: str) -> str:
    """Return the character that separates the columns: the most frequent one in the head, outside
    of quotes.
    """
    head = re.sub(r'"[^"]*"', "", sample.partition("\n")[0])
    return max(_DELIMITERS, key=head.count)


def _names(cells: Sequence[Any]) -> list[str]:
    """Return the names of the columns; the second of a name is called `NAME (2)`."""
    names: list[str] = []
    for cell in cells:
        name = str("" if cell is None else cell).strip().lstrip("\ufeff")
        number = 2
        while name and (shown := name if number == 2 else f"{name} ({number - 1})") in names:
            number += 1
        names.append(shown if name else "")
    return names


def _is_list_of_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _values(file: TextIO) -> Iterator[Any]:
    """Yield the items of a JSON document's list of records, without holding the document."""
    decoder, buffer = json.JSONDecoder(), ""
    while (begin := _BEGIN.search(buffer)) is None:
        chunk = file.read(_CHUNK)
        if not chunk:
            raise ValueError("no list of records")
        buffer += chunk
    buffer = buffer[begin.end() :]
    while True:
        buffer = buffer.lstrip(" \t\r\n,")
        if buffer.startswith("]"):
            return
        try:
            value, end = decoder.raw_decode(buffer)
            complete = end < len(buffer)  # a number may go on in the next chunk
        except ValueError:
            complete = False
        if complete:
            yield value
            buffer = buffer[end:]
            continue
        chunk = file.read(_CHUNK)
        if not chunk or len(buffer) > _MOST_DOCUMENT:
            raise ValueError("the JSON document ends within a record")
        buffer += chunk

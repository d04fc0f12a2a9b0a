"""Words for the identifiers among a sentence's arguments: states, checks, types, reasons.

Errors and findings carry stable identifiers (`succeeded`, `tuple`, `No space left on device`).
`in_words` replaces them by translated words.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any

from safetrain_shared.i18n import marked as _
from safetrain_shared.i18n import translate

# In English, the names that JSON uses.
STATES = {
    "queued": _("queued"),
    "checking": _("checking"),
    "running": _("running"),
    "paused": _("paused"),
    "interrupted": _("interrupted"),
    "succeeded": _("succeeded"),
    "failed": _("failed"),
    "cancelled": _("cancelled"),
}
LEVELS = {"warning": _("raised"), "critical": _("critical")}
# Python's types, as they appear in settings and training files.
TYPES = {
    "bool": _("yes or no (true, false)"),
    "int": _("a whole number"),
    "float": _("a number"),
    "str": _("a text"),
    "tuple": _("a list of names"),
    "list": _("a list"),
    "dict": _("an object"),
    "NoneType": _("nothing (null)"),
}
CHECKS = {
    "chip": _("chip"),
    "memory": _("memory"),
    "pressure": _("memory pressure"),
    "cores": _("processor cores"),
    "system": _("operating system"),
    "power": _("power supply"),
    "python": _("Python"),
    "packages": _("packages"),
    "compiler": _("compiler"),
    "blas": _("OpenBLAS"),
    "device": _("device that computes"),
    "device_limits": _("limits of the device"),
    "data_files": _("training files"),
    "problems": _("problems in the training files"),
    "repeats": _("repeated samples"),
    "leakage": _("samples that stand in both files"),
    "questions": _("questions of the evaluation"),
    "lengths": _("lengths of the samples"),
    "positions": _("the longest sequence of the model"),
    "repository": _("files of the model"),
    "architecture": _("architecture of the model"),
    "code": _("code of the model"),
    "model_keys": _("configuration of the model"),
    "targets": _("layers that get an adapter"),
    "quantization": _("quantization"),
    "licence": _("licence"),
    "loading": _("loading the model"),
    "output": _("output folder"),
    "disk_space": _("disk space"),
    "folders": _("place of the folders"),
}
# The operating system's error texts, which Python gives in English.
_SYSTEM = {
    errno.EPERM: _("the system forbids it"),
    errno.ENOENT: _("there is no such file or folder"),
    errno.EIO: _("the disk reports a fault"),
    errno.EACCES: _("its rights do not allow it"),
    errno.ENOTDIR: _("a part of the path is not a folder"),
    errno.EISDIR: _("it is a folder"),
    errno.EMFILE: _("too many files are open"),
    errno.ENOSPC: _("the disk is full"),
    errno.EXDEV: _("it lies on another disk"),
    errno.EROFS: _("the disk can only be read"),
    errno.ENAMETOOLONG: _("the name is too long"),
    errno.ELOOP: _("its links go round in a circle"),
    errno.EDQUOT: _("your share of the disk is used up"),
}
# Error texts of Python's decoder, orjson 3.11 and SQLite 3. Other texts are shown unchanged.
_PARSERS = {
    "utf-8": _("it is not text in UTF-8"),
    "unexpected character, expected a JSON value": _("a value should stand here"),
    "unexpected character, expected a string key": _("a key in double quotes should stand here"),
    "unexpected character, expected ':' after key": _("a colon is missing after the key"),
    "unexpected character, expected ',' or '}'": _("a comma or the closing brace is missing"),
    "unexpected character, expected ',' or ']'": _("a comma or the closing bracket is missing"),
    "unexpected content after document": _("something follows after the end"),
    "unexpected end of data": _("it ends in the middle"),
    "trailing comma is not allowed": _("there is a comma too many"),
    "unexpected control character in string": _("a control character stands in a text"),
    "invalid escaped sequence in string": _("a backslash is followed by what may not follow"),
    "no low surrogate in string": _("half of a character stands in a text"),
    "invalid high surrogate in string": _("half of a character stands in a text"),
    "number with leading zero is not allowed": _("a number begins with 0"),
    "invalid literal, expected 'true'": _("a value should stand here"),
    "invalid literal, expected 'false'": _("a value should stand here"),
    "invalid literal, expected 'null'": _("a value should stand here"),
    "no digit after sign": _("a number is unfinished"),
    "no digit after decimal point": _("a number is unfinished"),
    "no digit after exponent sign": _("a number is unfinished"),
    "number is infinity when parsed as double": _("a number is too large"),
    "depth limit exceeded": _("too many brackets within one another"),
    "file is not a database": _("it is not a database"),
    "database disk image is malformed": _("its inside is in disorder"),
    "database or disk is full": _("the disk is full"),
    "disk I/O error": _("the disk reports a fault"),
}
_OURS = {"still running": _("it was still running after many seconds")}
REASONS = {
    **_OURS,
    **{os.strerror(code): text for code, text in _SYSTEM.items()},
    **_PARSERS,
    **TYPES,
}
# The arguments whose values are such identifiers.
_TABLES: Mapping[str, Mapping[str, str]] = {
    "state": STATES,
    "level": LEVELS,
    "check": CHECKS,
    "needs": CHECKS,
    "kind": TYPES,
    "found": TYPES,
    "reason": REASONS,
}


def word(table: Mapping[str, str], name: str, lang: str | None = None) -> str:
    """Return the word for `name` in `lang`; `name` itself where the table lacks it."""
    return translate(table[name], lang) if name in table else name


def in_words(args: Mapping[str, Any], lang: str | None = None) -> dict[str, Any]:
    """Return the arguments of a sentence with identifiers replaced by words in `lang`."""
    tables = {name: _TABLES.get(name, {}) for name, value in args.items() if isinstance(value, str)}
    return {**args, **{name: word(table, args[name], lang) for name, table in tables.items()}}

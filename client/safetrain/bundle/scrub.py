"""Removes secrets, names and training data from the texts of an issue report.

In safetrain's own texts, secrets and names are replaced. Of program output, only lines of known
forms without data are kept, since any other line may quote a sample.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SECRET = "[secret]"
LEFT_OUT = "[left out]"

# PWD and OLDPWD are the shell's folders.
_SECRET_NAME = re.compile(
    r"TOKEN|KEY|SECRET|PASS|(?<!^)(?<!^OLD)PWD|CREDENTIAL|AUTH|COOKIE|PROXY|DSN|_URL$|INDEX", re.I
)
_SECRET_FORM = re.compile(
    r"\b(?:hf_|sk-|ghp_|gho_|github_pat_|glpat-|xox[a-z]-|AKIA)[\w-]{8,}"
    r"|(?<=Bearer )\S+"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
_HOMES = re.compile(r"/(?:Users|home)/[^/\s\"']+")
_LEAST_SECRET = 4  # shorter values, such as `1`, are no secrets

# Arguments of findings with paths, names and numbers; other texts may quote a sample.
_HARMLESS_ARGS = frozenset(
    {"path", "log", "output", "state", "checkpoint", "kind", "name", "names", "version", "found"}
    | {"known", "chip", "system", "architecture", "device", "check", "needs", "level", "folder"}
    | {"targets", "fine_tune_type", "schedule", "code"}
)

_OUR_LOG = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+ [A-Z]+ safetraind[\w.]*: ")
_STACK_LINE = re.compile(
    r'\s+File "[^"]*", line \d+, in \S+$|Traceback \(most recent call last\):$'
)
_EXCEPTION = re.compile(r"((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit))(?::|$)")
# MLX names its function in brackets; messages of the C++ runtime and the kernel hold no data.
_ENGINE = re.compile(
    r"(?:RuntimeError: |libmlx: )?\[[\w:]+\]\s|libc\+\+abi: |Fatal Python error: |Killed$"
    r"|Segmentation fault|.*Insufficient Memory|.*kIOGPU|.*Resource limit"
)


class Scrubber:
    """Replaces secrets and names."""

    def __init__(
        self,
        environ: Mapping[str, str] = os.environ,
        home: Path | None = None,
        names: tuple[str, ...] | None = None,
    ) -> None:
        """`names`: of the user and the machine; by default those of this one."""
        self._home = str(home or Path.home())
        secrets = (v for name, v in environ.items() if _SECRET_NAME.search(name))
        self._secrets = sorted((s for s in secrets if len(s) >= _LEAST_SECRET), key=len)[::-1]
        found = _own_names() if names is None else names
        words = "|".join(re.escape(name) for name in found if len(name) >= _LEAST_SECRET)
        self._names = re.compile(rf"(?<![\w-])(?:{words})(?![\w-])", re.I) if words else None

    def text(self, text: str) -> str:
        """Return the text without secrets and names, with `~` for the home."""
        for secret in self._secrets:
            text = text.replace(secret, SECRET)
        text = _SECRET_FORM.sub(SECRET, text)
        if len(self._home) > 1:
            text = re.sub(rf"{re.escape(self._home)}(?=[/\s\"']|$)", "~", text)
        text = _HOMES.sub("~", text)
        return self._names.sub("[name]", text) if self._names else text

    def value(self, value: Any) -> Any:
        """Return a JSON value with all its texts scrubbed."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(k)): self.value(v) for k, v in value.items()}
        return [self.value(v) for v in value] if isinstance(value, list | tuple) else value

    def log(self, text: str) -> str:
        """Return the lines of a log that hold no data; gaps are marked."""
        return self.text("".join(f"{line}\n" for line in _harmless(text)))


def without_quotes(value: Any) -> Any:
    """Return a JSON value whose findings keep numbers and names, without possible quotes."""
    if isinstance(value, Mapping):
        kept = {k: without_quotes(v) for k, v in value.items() if k != "text"}
        if isinstance(value.get("args"), Mapping):
            kept["args"] = {k: _argument(k, v) for k, v in value["args"].items()}
        return kept
    return [without_quotes(v) for v in value] if isinstance(value, list | tuple) else value


def _argument(name: str, value: Any) -> Any:
    return LEFT_OUT if isinstance(value, str) and name not in _HARMLESS_ARGS else value


def _harmless(text: str) -> Iterator[str]:
    gap = False
    for line in text.splitlines():
        kept = _kept(line)
        if kept is None:
            if not gap:
                yield LEFT_OUT
            gap = True
            continue
        gap = False
        yield kept


def _kept(line: str) -> str | None:
    if _OUR_LOG.match(line) or _STACK_LINE.match(line) or _ENGINE.match(line):
        return line
    exception = _EXCEPTION.match(line)
    return f"{exception[1]}: {LEFT_OUT}" if exception else None


def _own_names() -> tuple[str, ...]:
    host = socket.gethostname()
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no such user, as in some containers
        user = ""
    return tuple(name for name in {user, host, host.split(".")[0]} if name != "root")

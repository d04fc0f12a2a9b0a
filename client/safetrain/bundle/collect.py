"""Collects the files of an issue report from the home and writes the zip; needs no daemon."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import sys
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetrain.bundle.scrub import Scrubber, without_quotes
from safetrain_shared.errors import Conflict, NoRoom, NotAllowed
from safetrain_shared.i18n import marked, translate
from safetrain_shared.packages import PACKAGES
from safetrain_shared.paths import Home, RunFolder

ABOUT = marked("""\
A report of `safetrain diagnose --bundle`, for an issue. All plain text: read it before you send it.

diagnosis.json     what was found, and the kind of machine
environment.json   versions, and whether certain variables are set
daemon.log         the service's own words
runs/ID/           plan, attempts, events (losses, speed, memory) and, of the worker's log, only
                   lines that carry no data; of the newest jobs

Left out: questions, answers, training data, tokens and other secrets, your name and the machine's.
Paths below your home begin with ~.
""")
_JOBS = 3
_TAIL_BYTES = 512 << 10
_PACKAGES = ("safetrain", "click", "rich", *(package.distribution for package in PACKAGES))
_SHOWN_VARIABLES = ("LANG", "LC_ALL", "TERM", "NO_COLOR", "MLX_DISABLE_COMPILE", "SAFETRAIN_LANG")
_NAMED_VARIABLES = ("HF_TOKEN", "HTTPS_PROXY", "HF_HUB_OFFLINE", "SAFETRAIN_HOME", "VIRTUAL_ENV")
_SPEC_KEPT = ("settings", "memory_budget", "trust_remote_code", "allow_shorter", "model")


def write(path: Path, home: Home, diagnosis: Mapping[str, Any], job: int | None = None) -> int:
    """Write the zip at `path`, readable by its owner alone, and return its size in bytes.

    `job`: the job to include; None: the newest ones. Raises Conflict where something is
    there already, NotAllowed where the folder may not be written, NoRoom where the disk refuses.
    """
    refuse_taken(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with (
            os.fdopen(descriptor, "wb") as raw,
            zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as bundle,
        ):
            for name, text in files(home, diagnosis, Scrubber(), job):
                bundle.writestr(name, text)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR):
            raise NotAllowed("path.unwritable", path=str(path), reason=reason) from error
        raise NoRoom("disk.refused", path=str(path), reason=reason) from error
    return path.stat().st_size


def refuse_taken(path: Path) -> None:
    """Raise Conflict where `path` exists."""
    if path.exists():
        raise Conflict("diagnosis.bundle_taken", path=str(path))


def files(
    home: Home, diagnosis: Mapping[str, Any], scrub: Scrubber, job: int | None = None
) -> Iterator[tuple[str, str]]:
    """Yield name and text of each file of the report."""
    yield "README.txt", translate(ABOUT)
    yield "diagnosis.json", _json(scrub.value(without_quotes(diagnosis)))
    yield "environment.json", _json(scrub.value(_environment()))
    yield "daemon.log", scrub.log(_tail(home.log))
    for number in [job] if job else _newest_jobs(home):
        run = home.run(number)
        for name, value in _records(run):
            yield f"runs/{number}/{name}", _json(scrub.value(without_quotes(value)))
        yield f"runs/{number}/events.log", _events(run, scrub)
        yield f"runs/{number}/worker.log", scrub.log(_tail(run.log))


def _records(run: RunFolder) -> Iterator[tuple[str, Any]]:
    """Yield the small files of a run; fields of its spec that name the data are left out."""
    document = _read(run.spec)
    spec = document.get("spec", {}) if isinstance(document, dict) else {}
    yield "spec.json", {name: spec[name] for name in _SPEC_KEPT if name in spec}
    for path in (run.plan, run.launch, run.exit):
        found = _read(path)
        if found is not None:
            yield path.name, found


def _events(run: RunFolder, scrub: Scrubber) -> str:
    """Return the events without checksums, one JSON object per line."""
    lines = []
    for line in _tail(run.events).splitlines():
        try:
            event = json.loads(line.partition(" ")[2])
        except ValueError:
            lines.append('{"damaged": true}')
            continue
        lines.append(json.dumps(scrub.value(without_quotes(event)), ensure_ascii=False))
    return "\n".join(lines) + "\n"


def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "native": sys.platform,
        "versions": {name: _version(name) for name in _PACKAGES},
        "variables": {name: os.environ[name] for name in _SHOWN_VARIABLES if name in os.environ},
        "set": [name for name in _NAMED_VARIABLES if os.environ.get(name)],
    }


def _newest_jobs(home: Home) -> list[int]:
    runs = home.root / "runs"
    found = [int(p.name) for p in runs.iterdir() if p.name.isdigit()] if runs.is_dir() else []
    return sorted(found)[-_JOBS:]


def _tail(path: Path) -> str:
    """Return the end of a text file, from the start of a line; empty where it is missing."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return text if size <= _TAIL_BYTES else text.partition("\n")[2]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""

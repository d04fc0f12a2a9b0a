"""Ollama on this machine: whether it answers, and giving it an exported model by its command."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from safetrain_shared.errors import Conflict, Unreachable

_APP = "/Applications/Ollama.app/Contents/Resources"  # the app brings the command along
_SECONDS = 60.0  # of `ollama list`, which starts the app on a Mac
_LONGEST_NAME = 80


def name_of(folder: str) -> str:
    """Return the name that a model gets after its folder.

    Ollama's names have letters, digits, `_`, `-` and `.`, and begin with a letter or digit, at most
    80 of them (its types/model/name.go).
    """
    plain = re.sub(r"[^a-z0-9_.-]+", "-", Path(folder).name.lower())
    return re.sub(r"^[^a-z0-9]+", "", plain)[:_LONGEST_NAME] or "model"


def check(name: str) -> None:
    """Raise Unreachable where Ollama is not here or does not answer, Conflict for a name it has."""
    listed = _run("list", seconds=_SECONDS)
    if listed.returncode:
        raise Unreachable("export.ollama_silent", reason=_reason(listed))
    names = [line.split()[0] for line in listed.stdout.splitlines() if line.strip()]
    if f"{name}:latest" in names:
        raise Conflict("export.program_has_it", program="Ollama", name=name)


def create(name: str, folder: Path) -> None:
    """Let Ollama take the model of a folder with a Modelfile. Raises Unreachable."""
    # In the folder: some versions look for the weights from where they are called.
    made = _run("create", name, "-f", "Modelfile", folder=folder)
    if made.returncode:
        raise Unreachable("export.ollama_refused", reason=_reason(made), path=str(folder))


def _run(
    *arguments: str, folder: Path | None = None, seconds: float | None = None
) -> subprocess.CompletedProcess[str]:
    program = shutil.which("ollama") or shutil.which("ollama", path=_APP)
    if program is None:
        raise Unreachable("export.ollama_missing")
    command = [program, *arguments]
    try:
        return subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unreachable("export.ollama_silent", reason=type(error).__name__) from error


def _reason(ended: subprocess.CompletedProcess[str]) -> str:
    """Return the sentence of a failed command: its last line, without what draws a progress bar."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", ended.stderr)
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    return lines[-1].removeprefix("Error: ")[:200] if lines else f"exit code {ended.returncode}"

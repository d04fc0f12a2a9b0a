"""The agent that starts the service at a user's login: where its file is, and what that names."""

from __future__ import annotations

import os
import plistlib
import re
import sys
from pathlib import Path

LABEL = "org.safetrain.safetraind"
UNIT = "safetraind.service"


def agent_path() -> Path:
    """Return the file of our launchd agent on macOS, of our systemd user unit on Linux."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "systemd" / "user" / UNIT


def missing_program() -> str:
    """Return the Python that the installed agent starts, if it is gone, as after an upgrade; empty
    where all is well or nothing is installed.
    """
    try:
        data = agent_path().read_bytes()
    except OSError:
        return ""
    program = _program(data)
    return program if program and not Path(program).exists() else ""


def _program(data: bytes) -> str:
    """Return the executable that an agent's file names; empty where it names none."""
    if sys.platform == "darwin":
        try:
            return str(plistlib.loads(data)["ProgramArguments"][0])
        except (ValueError, KeyError, IndexError):  # somebody else's, or damaged
            return ""
    found = re.search(r'^ExecStart="((?:[^"\\]|\\.)*)"', data.decode("utf-8", "replace"), re.M)
    text = found[1].replace("%%", "%").replace("$$", "$") if found else ""
    return re.sub(r"\\(.)", r"\1", text)

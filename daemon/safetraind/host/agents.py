"""Where the platform looks for what starts at a user's login."""

from __future__ import annotations

import os
import sys
from pathlib import Path

LABEL = "org.safetrain.safetraind"
UNIT = "safetraind.service"


def agent_path() -> Path:
    """The file of our launchd agent on macOS, of our systemd user unit on Linux."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "systemd" / "user" / UNIT

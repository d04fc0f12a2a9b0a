"""The service at every login: a launchd agent on macOS, a systemd user unit on Linux."""

from __future__ import annotations

import os
import plistlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from safetrain_shared.paths import Home, private

LABEL = "org.safetrain.safetraind"
UNIT = "safetraind.service"
# An agent inherits nothing of the shell: what models and downloads need is written down.
_KEPT = ("PATH", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "http_proxy", "https_proxy", "no_proxy")
_KEPT_UPPER = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def install(home: Home) -> Path:
    """Writes the agent for this home and this Python, starts it, and returns its file.

    A token (HF_TOKEN) is a secret and is not written down: `hf auth login` keeps it where the
    service finds it. Raises OSError.
    """
    private(home.root)
    path = agent_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    if sys.platform == "darwin":
        path.write_bytes(launchd_agent(home, environment(home)))
        _tell("launchctl", "bootout", f"gui/{os.getuid()}/{LABEL}")
        _tell("launchctl", "bootstrap", f"gui/{os.getuid()}", str(path))
    else:
        path.write_text(systemd_unit(environment(home)), encoding="utf-8")
        _tell("systemctl", "--user", "daemon-reload")
        _tell("systemctl", "--user", "enable", "--now", UNIT)
    return path


def uninstall() -> Path | None:
    """Stops and removes the agent; a training goes on. Returns its file, None where none was."""
    path = agent_path()
    if not path.exists():
        return None
    if sys.platform == "darwin":
        _tell("launchctl", "bootout", f"gui/{os.getuid()}/{LABEL}")
        path.unlink()
    else:
        _tell("systemctl", "--user", "disable", "--now", UNIT)
        path.unlink()
        _tell("systemctl", "--user", "daemon-reload")
    return path


def agent_path() -> Path:
    """Where the platform looks for agents of this user."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "systemd" / "user" / UNIT


def environment(home: Home) -> dict[str, str]:
    """What the service must have of this shell."""
    kept = {name: os.environ[name] for name in (*_KEPT, *_KEPT_UPPER) if name in os.environ}
    return {**kept, "SAFETRAIN_HOME": str(home.root)}


def launchd_agent(home: Home, variables: dict[str, str]) -> bytes:
    """The property list (launchd.plist(5)).

    `AbandonProcessGroup`: a stopping daemon must not take its worker along. `ProcessType`: unset,
    launchd throttles processor and disk. `KeepAlive`: again after a crash, not after `stop`.
    """
    return plistlib.dumps(
        {
            "Label": LABEL,
            "ProgramArguments": list(_command()),
            "EnvironmentVariables": variables,
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "AbandonProcessGroup": True,
            "ProcessType": "Interactive",
            "SoftResourceLimits": {"NumberOfFiles": 4096},
            "StandardOutPath": str(home.log.with_suffix(".out")),
            "StandardErrorPath": str(home.log.with_suffix(".out")),
        }
    )


def systemd_unit(variables: dict[str, str]) -> str:
    """The unit (systemd.service(5)). `KillMode=process`: the worker outlives a stopping daemon."""
    command = " ".join(_quoted(part).replace("$", "$$") for part in _command())
    environment = "\n".join(f"Environment={_quoted(f'{k}={v}')}" for k, v in variables.items())
    return f"""[Unit]
Description=safetrain, the service that trains

[Service]
Type=notify
ExecStart={command}
{environment}
KillMode=process
Restart=on-failure
RestartPreventExitStatus=75
TimeoutStopSec=60

[Install]
WantedBy=default.target
"""


def _command() -> Sequence[str]:
    return (sys.executable, "-m", "safetraind", "run")


def _quoted(text: str) -> str:
    """A word of a unit file: quoted, with specifiers escaped."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("%", "%%") + '"'


def _tell(*command: str) -> None:
    """Asks the service manager; where there is none (a container, ssh), the file alone is there."""
    try:
        subprocess.run(command, capture_output=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        pass

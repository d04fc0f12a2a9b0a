"""Starts the service at every login: a launchd agent on macOS, a systemd user unit on Linux."""

from __future__ import annotations

import os
import plistlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from safetrain_shared.paths import Home, private
from safetraind import background
from safetraind.host.agents import LABEL, UNIT, agent_path, missing_program

Ask = Callable[..., bool]  # runs a command of the service manager, returns whether it succeeded
# An agent inherits no variables of the shell; those for models and downloads are written into it.
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_KEPT = (
    *("PATH", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "PIP_CONFIG_FILE", "PIP_CERT"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *_PROXIES,
    *map(str.upper, _PROXIES),
)
_BOOTSTRAP_SECONDS = 10.0
_POLL_SECONDS = 0.5


def ask(*command: str) -> bool:
    """Run a command of the service manager. Return False if it fails or there is none
    (container).
    """
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=90).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def install(home: Home, ask: Ask = ask) -> tuple[Path, bool]:
    """Write the agent for this home and this Python, and load it into the service manager.

    Return the agent's file, and whether the service manager loaded it; if not, it does so at the
    next login. A running service is stopped gracefully and started again by the service manager;
    without one (a container, ssh) it is started directly. A token (HF_TOKEN) is a secret and is not
    written: `hf auth login` stores it where the service finds it. Raises OSError, and the error of
    a service that does not start.
    """
    private(home.root, parents=True)
    path = agent_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    if sys.platform == "darwin":
        path.write_bytes(launchd_agent(home, environment(home)))
        ran = background.stop_if_running(home)
        begun = _bootstrap(path, ask)
    else:
        path.write_text(systemd_unit(environment(home)), encoding="utf-8")
        ran = background.stop_if_running(home)
        ask("systemctl", "--user", "daemon-reload")
        begun = ask("systemctl", "--user", "enable", "--now", UNIT)
    if begun:
        background.wait(home)
    elif ran:
        background.start(home)
    return path, begun


def _bootstrap(path: Path, ask: Ask) -> bool:
    """Load the agent into launchd. Return whether `launchctl print` then shows it.

    A bootstrap right after a bootout fails with 5 (input/output error) until launchd has unloaded
    the old agent, and one that is reported as failed may have worked.
    """
    ask("launchctl", "bootout", _target())
    deadline = time.monotonic() + _BOOTSTRAP_SECONDS
    while True:
        ask("launchctl", "bootstrap", _target().rpartition("/")[0], str(path))
        if ask("launchctl", "print", _target()):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)


def uninstall(ask: Ask = ask) -> Path | None:
    """Stop and remove the agent. A training continues. Return the removed file, None if there was
    none.
    """
    path = agent_path()
    if not path.exists():
        return None
    if sys.platform == "darwin":
        ask("launchctl", "bootout", _target())
        path.unlink()
    else:
        ask("systemctl", "--user", "disable", "--now", UNIT)
        path.unlink()
        ask("systemctl", "--user", "daemon-reload")
    return path


def start(home: Home, ask: Ask = ask) -> int:
    """Start the service and return its pid; by the service manager if it is installed there.

    Raises Busy where a service runs already, and the error of a service that does not start.
    """
    background.refuse_another(home)
    command: tuple[str, ...] = ("launchctl", "kickstart", _target())
    if sys.platform != "darwin":
        command = ("systemctl", "--user", "start", UNIT)
    return _started(home, ask, *command)


def restart(home: Home, ask: Ask = ask) -> int:
    """Stop the service gracefully, if one runs, start it as `start` does, and return its pid."""
    background.stop_if_running(home)
    # -k: the old process may still be exiting.
    command: tuple[str, ...] = ("launchctl", "kickstart", "-k", _target())
    if sys.platform != "darwin":
        command = ("systemctl", "--user", "restart", UNIT)
    return _started(home, ask, *command)


def is_agent() -> bool:
    """Return whether launchd started this process as safetrain's agent."""
    return os.environ.get("XPC_SERVICE_NAME") == LABEL


def _started(home: Home, ask: Ask, *command: str) -> int:
    """Start the service by `command` if the agent is installed, else directly. Return its pid."""
    if _is_installed(home) and not missing_program() and ask(*command):
        return background.wait(home)
    return background.start(home)


def _is_installed(home: Home) -> bool:
    """Return whether the agent is installed and serves this home."""
    try:
        data = agent_path().read_bytes()
    except OSError:
        return False
    if sys.platform != "darwin":
        return _quoted(f"SAFETRAIN_HOME={home.root}").encode() in data
    try:
        agent = plistlib.loads(data)
    except ValueError:  # another program's, or damaged
        return False
    return bool(agent.get("EnvironmentVariables", {}).get("SAFETRAIN_HOME") == str(home.root))


def _target() -> str:
    return f"gui/{os.getuid()}/{LABEL}"


def environment(home: Home) -> dict[str, str]:
    """Return the variables of this shell that the service needs."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "SAFETRAIN_HOME": str(home.root)}


def launchd_agent(home: Home, variables: dict[str, str]) -> bytes:
    """Return the property list (launchd.plist(5)).

    `AbandonProcessGroup`: launchd must not kill the worker when the daemon stops. `ProcessType`:
    unset, launchd throttles processor and disk. `KeepAlive`: restart after a crash, not after
    `stop`.
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
    """Return the unit (systemd.service(5)).

    `KillMode=process`: the worker outlives a stopping daemon. `OOMPolicy=continue`: the daemon
    continues when the kernel kills a worker for memory.
    """
    command = " ".join(_quoted(part).replace("$", "$$") for part in _command())
    environment = "\n".join(f"Environment={_quoted(f'{k}={v}')}" for k, v in variables.items())
    return f"""[Unit]
Description=safetrain, the service that trains

[Service]
Type=notify
ExecStart={command}
{environment}
KillMode=process
OOMPolicy=continue
Restart=on-failure
RestartPreventExitStatus=75
TimeoutStopSec=60

[Install]
WantedBy=default.target
"""


def _command() -> Sequence[str]:
    return (sys.executable, "-m", "safetraind", "run")


def _quoted(text: str) -> str:
    """Quote a word for a unit file and escape specifiers."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("%", "%%") + '"'

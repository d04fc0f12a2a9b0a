"""What `safetraind install` writes for launchd and systemd."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from safetrain_shared.paths import Home
from safetraind import agent


def test_the_launchd_agent_leaves_workers_alone_and_is_not_throttled(tmp_path: Path) -> None:
    home = Home(tmp_path / "My Home")
    plist = plistlib.loads(agent.launchd_agent(home, {"SAFETRAIN_HOME": str(home.root)}))
    assert plist["AbandonProcessGroup"] is True
    assert plist["KeepAlive"] == {"SuccessfulExit": False}
    assert plist["ProcessType"] == "Interactive"
    assert plist["ProgramArguments"] == [sys.executable, "-m", "safetraind", "run"]
    assert plist["EnvironmentVariables"]["SAFETRAIN_HOME"] == str(home.root)


def test_secrets_of_the_shell_are_not_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    variables = agent.environment(Home(tmp_path))
    assert "hf_secret" not in agent.systemd_unit(variables)
    assert b"hf_secret" not in agent.launchd_agent(Home(tmp_path), variables)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
def test_systemd_accepts_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = agent.install(Home(tmp_path / 'a "home" of 100 %'))
    text = path.read_text()
    assert "KillMode=process" in text
    assert "Type=notify" in text
    found = subprocess.run(
        ["systemd-analyze", "verify", "--user", str(path)],
        capture_output=True,
        text=True,
        env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        check=False,
    )
    assert path.name not in found.stderr, found.stderr
    assert found.returncode == 0, found.stderr
    assert agent.uninstall() == path
    assert agent.uninstall() is None

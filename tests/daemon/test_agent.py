"""What `safetraind install` writes for launchd and systemd, and what it asks of them.

No test asks the service manager of whoever runs it: they are given a scripted one.
"""

from __future__ import annotations

import plistlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from safetrain_shared.errors import Busy
from safetrain_shared.paths import Home
from safetraind import agent, background
from safetraind.host.agents import missing_program
from tests.harness import DaemonProcess, wait_for

MakeManager = Callable[..., "Manager"]


class Manager:
    """A service manager that notes what it is asked, and does what `does` says."""

    def __init__(self, does: Callable[[], bool]) -> None:
        self.asked: list[str] = []
        self._does = does

    def __call__(self, *command: str) -> bool:
        self.asked.append(" ".join(command))
        return self._does()


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launchd that does not take the agent is not waited for."""
    monkeypatch.setattr(agent, "_BOOTSTRAP_SECONDS", 0.0)
    monkeypatch.setattr(agent, "_POLL_SECONDS", 0.0)


@pytest.fixture(params=["darwin", "linux"])
def platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    monkeypatch.setattr("safetraind.agent.sys.platform", name)
    return name


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
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    nobody = Manager(lambda: False)
    path, begun = agent.install(Home(tmp_path / 'a "home" of 100 %'), nobody)
    assert not begun
    text = path.read_text()
    assert path.is_relative_to(tmp_path)
    for line in ("KillMode=process", "OOMPolicy=continue", "Type=notify"):
        assert line in text.splitlines()
    found = subprocess.run(
        ["systemd-analyze", "verify", "--user", str(path)],
        capture_output=True,
        text=True,
        env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        check=False,
    )
    assert path.name not in found.stderr, found.stderr
    assert found.returncode == 0, found.stderr
    assert agent.uninstall(nobody) == path
    assert agent.uninstall(nobody) is None
    assert nobody.asked == [
        "systemctl --user daemon-reload",
        "systemctl --user enable --now safetraind.service",
        "systemctl --user disable --now safetraind.service",
        "systemctl --user daemon-reload",
    ]


def test_a_running_service_is_handed_over_and_its_successor_is_waited_for(
    platform: str, daemon: DaemonProcess
) -> None:
    """The old one first: of two that start together one would end with 75, over and over."""
    old = daemon.info().pid
    new = DaemonProcess(daemon.home.root)

    def begin() -> bool:
        assert daemon.process is not None
        if daemon.process.poll() is None:
            assert daemon.process.wait(10) == 0, "it has been asked to stop, and stops gently"
        if new.process is None:
            new.spawn()
        return True

    try:
        manager = Manager(begin)
        agent.install(daemon.home, manager)
        assert background.info(daemon.home)["pid"] != old
        last = {"darwin": "launchctl print gui/", "linux": "systemctl --user enable --now"}
        assert manager.asked[-1].startswith(last[platform])
        with pytest.raises(Busy):
            agent.start(daemon.home, manager)
    finally:
        new.end()


def test_restart_and_start_ask_the_manager_where_the_service_is_installed(
    platform: str, home: Path
) -> None:
    daemon = DaemonProcess(home)

    def begin() -> bool:
        if daemon.process is not None:
            assert daemon.process.wait(10) == 0
        daemon.spawn()
        return True

    manager = Manager(begin)
    ways = {
        "darwin": ["launchctl kickstart gui/", "launchctl kickstart -k gui/"],
        "linux": ["systemctl --user start ", "systemctl --user restart "],
    }
    try:
        agent.install(daemon.home, Manager(lambda: False))
        first = agent.start(daemon.home, manager)
        second = agent.restart(daemon.home, manager)
        assert len({first, second}) == 2
        assert second == background.info(daemon.home)["pid"]
        for asked, way in zip(manager.asked, ways[platform], strict=True):
            assert asked.startswith(way)
    finally:
        daemon.end()


@pytest.mark.parametrize("installed", ["not at all", "for another home", "but there is no manager"])
def test_without_an_agent_of_this_home_a_service_of_our_own_is_started(
    installed: str, platform: str, home: Path, tmp_path: Path
) -> None:
    refuses = Manager(lambda: False)
    if installed != "not at all":
        agent.install(Home(tmp_path / "other" if "another" in installed else home), refuses)
    refuses.asked.clear()
    daemon = DaemonProcess(home)
    try:
        pid = agent.restart(daemon.home, refuses)
        assert background.info(daemon.home)["pid"] == pid
        assert len(refuses.asked) == (1 if "no manager" in installed else 0)
        background.stop(daemon.home, now=False)
        wait_for(lambda: not daemon.processes())
    finally:
        daemon.end()


def test_a_service_that_ran_goes_on_where_there_is_no_manager(
    platform: str, daemon: DaemonProcess
) -> None:
    old = daemon.info().pid
    agent.install(daemon.home, Manager(lambda: False))
    assert background.info(daemon.home)["pid"] not in (old, 0)


def test_an_agent_that_comes_second_ends_without_a_complaint(daemon: DaemonProcess) -> None:
    """Else launchd would start it again every ten seconds."""
    command = [sys.executable, "-m", "safetraind", "run"]
    environment = daemon.environment() | {"XPC_SERVICE_NAME": agent.LABEL}
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert subprocess.run(command, env=daemon.environment(), check=False).returncode == 75


class Launchd:
    """A launchd that lets the old agent go only after some questions."""

    def __init__(self, busy: int, *, says_failed: bool = False) -> None:
        self.busy, self.says_failed = busy, says_failed
        self.loaded = False
        self.asked: list[str] = []

    def __call__(self, *command: str) -> bool:
        self.asked.append(command[1])
        if command[1] == "bootstrap":
            self.busy -= 1
            self.loaded = self.busy < 0
            return self.loaded and not self.says_failed
        return self.loaded if command[1] == "print" else True


@pytest.mark.parametrize("says_failed", [False, True])
def test_launchd_is_asked_until_it_shows_the_agent(
    says_failed: bool, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safetraind.agent.sys.platform", "darwin")
    monkeypatch.setattr(agent, "_BOOTSTRAP_SECONDS", 60.0)
    monkeypatch.setattr(background, "wait", lambda home: 1)
    launchd = Launchd(busy=3, says_failed=says_failed)
    _, begun = agent.install(Home(home), launchd)
    assert begun
    assert launchd.asked == ["bootout", *["bootstrap", "print"] * 4]


def test_a_launchd_that_never_shows_the_agent_is_said_to_have_not_taken_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safetraind.agent.sys.platform", "darwin")
    assert agent.install(Home(home), Launchd(busy=100))[1] is False


def test_a_python_that_was_upgraded_away_is_noticed(
    platform: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert missing_program() == "", "nothing is installed"
    python = tmp_path / 'my "own" 100 % $python' / "bin" / "python3.11"
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.setattr(agent.sys, "executable", str(python))
    agent.install(Home(home), Manager(lambda: False))
    assert missing_program() == ""
    python.unlink()
    assert missing_program() == str(python)
    asked = Manager(lambda: True)
    monkeypatch.setattr(background, "start", lambda home: 7)
    assert agent.start(Home(home), asked) == 7
    assert asked.asked == [], "what names a Python that is gone cannot be started"


def test_certificates_and_proxies_reach_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "ALL_PROXY", "https_proxy", "PIP_CERT")
    for name in names:
        monkeypatch.setenv(name, f"/{name}")
    variables = agent.environment(Home(tmp_path))
    assert {name: variables[name] for name in names} == {name: f"/{name}" for name in names}

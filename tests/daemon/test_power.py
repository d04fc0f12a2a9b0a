"""A Mac on battery, with a lid: said when a training starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safetrain_shared.events import Notice, StepDone
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobState
from safetrain_shared.settings import TrainingSettings
from safetraind.controller.start_notices import start_notices
from safetraind.host import HostFacts, awake, macos
from safetraind.processes import keeper
from tests.daemon.conftest import PLAY, MakeSpec
from tests.harness import DaemonProcess
from tests.preflight.facts import LINUX
from tests.preflight.macs import M1_AIR, M1_PRO, M2_MINI


def warnings(
    machine: HostFacts, attempt: int = 1, *, segments: float = 0.0, at_login: bool = True
) -> list[Finding]:
    settings = TrainingSettings(segment_minutes=segments)
    return start_notices(machine, settings, attempt, at_login=at_login)


def test_recorded_macs_are_warned_of_what_they_have() -> None:
    on_battery, plugged_in, desktop = (macos.gather(mac.run()) for mac in (M1_AIR, M1_PRO, M2_MINI))
    assert on_battery.on_battery and plugged_in.on_battery is False
    assert [finding.code for finding in warnings(on_battery)] == ["hardware.battery", "job.lid"]
    assert warnings(on_battery)[0].args["share"] == on_battery.battery_share > 0
    assert [finding.code for finding in warnings(plugged_in)] == ["job.lid"]
    assert warnings(desktop) == []
    assert warnings(LINUX) == []


def test_of_a_training_in_segments_it_is_said_once_that_a_restart_would_end_it() -> None:
    on_battery = macos.gather(M1_AIR.run())
    for machine, more in ((LINUX, []), (on_battery, ["hardware.battery", "job.lid"])):
        first = warnings(machine, segments=45, at_login=False)
        assert [finding.code for finding in first] == ["job.not_at_login", *more]
        assert warnings(machine, 2, segments=45, at_login=False) == []
    assert warnings(LINUX, segments=45, at_login=True) == []
    assert warnings(LINUX, segments=0, at_login=False) == []


def test_a_training_that_starts_on_battery_says_so_in_its_story(
    home: Path, make_spec: MakeSpec
) -> None:
    mac = {"system": "Darwin", "on_battery": True, "battery_share": 0.4}
    playing = DaemonProcess(home, PLAY, {"PLAY_HOST": json.dumps(mac)})
    try:
        job = playing.start().submit(make_spec(num_epochs=1)).job.id
        playing.wait_for_state(job, JobState.SUCCEEDED)
        bodies = [event.body for event in playing.watch(job)]
        told = [body.finding for body in bodies if isinstance(body, Notice)]
        assert [(finding.code, dict(finding.args)) for finding in told] == [
            ("hardware.battery", {"share": 0.4}),
            ("job.lid", {}),
        ]
        kinds = [type(body) for body in bodies]
        assert kinds.index(Notice) < kinds.index(StepDone)
    finally:
        playing.end()


@pytest.mark.parametrize(("system", "held"), [("darwin", True), ("linux", False)])
def test_the_sleep_of_an_idle_mac_is_held_off_while_the_worker_lives(
    system: str, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[list[str]] = []
    monkeypatch.setattr(keeper.sys, "platform", system)
    monkeypatch.setattr(keeper.subprocess, "Popen", lambda command, **_: begun.append(command))
    keeper._keep_awake(4711)
    assert begun == ([["/usr/bin/caffeinate", "-i", "-w", "4711"]] if held else [])
    assert set(keeper._AWAKE) == {
        "train",
        "evaluate",
        "probe",
        "rank",
        "pilot",
        "fetch",
        "convert",
        "export",
    }


@pytest.mark.parametrize(("system", "held"), [("darwin", True), ("linux", False)])
def test_a_mac_is_kept_awake_while_a_training_rests(
    system: str, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[list[str]] = []

    class Caffeinate:
        def __init__(self, command: list[str], **_: object) -> None:
            begun.append(command)

        def kill(self) -> None:
            begun.append(["killed"])

        def wait(self) -> None:
            pass

    monkeypatch.setattr(awake.sys, "platform", system)
    monkeypatch.setattr(awake.subprocess, "Popen", Caffeinate)
    with awake.stay_awake(300):
        assert begun == ([["/usr/bin/caffeinate", "-i", "-t", "301"]] if held else [])
    assert len(begun) == 2 * held

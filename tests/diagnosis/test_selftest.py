"""`safetrain diagnose --selftest`: the whole of it, and that it would notice what is wrong."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import grpc
import pytest

from safetrain.cli import main
from safetrain.terminal.selftest_text import conclusion, machine
from safetrain_shared.errors import Unreachable
from safetrain_shared.events import StepDone
from safetrain_shared.findings import Status
from safetrain_shared.jobs import Plan
from safetrain_shared.settings import TrainingSettings, checked
from safetraind import selftest
from safetraind.host import Pressure, mac_services
from safetraind.selftest import Run, Selftest


@pytest.mark.compiled
def test_this_machine_passes_and_its_verdict_can_be_posted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFETRAIN_HOME", str(tmp_path / "mine"))
    bundle = tmp_path / "report.zip"
    done = subprocess.run(
        [sys.executable, "-m", "safetrain", "diagnose", "--selftest", "--bundle", str(bundle)],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for sentence in (
        "✓ Trained a tiny model: ",
        "✓ Peak memory ",
        "✓ Killed the worker at step ",
        "✓ Equal to the bit with an undisturbed run: ",
        "✓ All passed: ",
    ):
        assert sentence in done.stdout
    assert not (tmp_path / "mine").exists()
    told = diagnosis(bundle)["selftest"]
    assert told[-1]["done"]["passed"]
    verdicts = [said["finding"]["status"] for said in told if "finding" in said]
    assert verdicts.count("passed") >= 4 and "failed" not in verdicts


def diagnosis(bundle: Path) -> Any:
    with zipfile.ZipFile(bundle) as files:
        return json.loads(files.read("diagnosis.json"))


def test_a_selftest_that_breaks_off_is_reported_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks_off(**_: Any) -> Iterator[dict[str, Any]]:
        yield {"doing": "making"}
        raise Unreachable("daemon.not_installed")

    monkeypatch.setenv("SAFETRAIN_HOME", str(tmp_path / "mine"))
    monkeypatch.setattr("safetrain.selftest_process.selftest", breaks_off)
    bundle = tmp_path / "report.zip"
    assert main(["diagnose", "--selftest", "--bundle", str(bundle)]) == 69
    told = diagnosis(bundle)
    assert told["selftest"] == [{"doing": "making"}]
    assert told["error"]["code"] == "daemon.not_installed"


def test_a_report_that_is_there_already_is_told_before_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safetrain.selftest_process.selftest", lambda **_: 1 / 0)
    (tmp_path / "report.zip").touch()
    assert main(["diagnose", "--selftest", "--bundle", str(tmp_path / "report.zip")]) == 73


MB = 1 << 20


def step(number: int, loss: float, peak: int = 1000 * MB) -> StepDone:
    return StepDone(number, 0, number, 4, loss, 1e-3, 1.0, 1, 1.0, peak, 1, 0.0)


RUN = Run(
    {n: step(n, loss) for n, loss in enumerate((4.0, 3.0, 2.0, 1.0), 1)},
    adapter=b"weights",
    plan=Plan(TrainingSettings(), "m", measured_peak=1000 * MB),
    resumed=2,
    killed=3,
)


def verdicts(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    alone: Run,
    killed: Run,
    again: Run | None = None,
) -> list[str]:
    tested = Selftest(tmp_path)
    tested._judge_training(alone)
    tested._judge_resume(alone, again or alone, killed)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [one["finding"]["code"].removeprefix("selftest.") for one in said]


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "equal"),
        ({"adapter": b"weights!"}, "not_equal"),
        ({"steps": {**RUN.steps, 4: step(4, 1.0000001)}}, "not_equal"),
        ({"steps": {n: s for n, s in RUN.steps.items() if n < 4}}, "not_equal"),
        ({"resumed": 0}, "not_resumed"),
    ],
)
def test_a_resume_that_is_not_exact_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], verdict: str
) -> None:
    found = verdicts(tmp_path, capsys, RUN, dataclasses.replace(RUN, **change))
    assert verdict in found


@pytest.mark.parametrize(
    ("steps", "verdict"),
    [
        ({1: step(1, 4.0), 2: step(2, 3.9)}, "not_learned"),
        ({1: step(1, 4.0), 2: step(2, float("nan"))}, "not_learned"),
        ({1: step(1, 4.0), 2: step(2, 1.0, peak=1200 * MB)}, "peak_wrong"),
        ({1: step(1, 4.0, peak=800 * MB), 2: step(2, 1.0, peak=800 * MB)}, "peak_wrong"),
        ({1: step(1, 4.0), 2: step(2, 1.0, peak=1050 * MB)}, "peak_right"),
    ],
)
def test_a_wrong_plan_and_a_flat_loss_are_noticed(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    steps: dict[int, StepDone],
    verdict: str,
) -> None:
    run = dataclasses.replace(RUN, steps=steps)
    assert verdict in verdicts(tmp_path, capsys, run, run)


def test_of_a_tiny_training_some_megabytes_more_are_no_wrong_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan(TrainingSettings(), "m", measured_peak=40 * MB)
    for peak, verdict in ((47, "peak_right"), (50, "peak_wrong")):
        steps = {1: step(1, 4.0, peak=peak * MB), 2: step(2, 1.0, peak=peak * MB)}
        run = dataclasses.replace(RUN, steps=steps, plan=plan)
        assert verdict in verdicts(tmp_path, capsys, run, run)


@pytest.mark.parametrize("killed", [RUN, dataclasses.replace(RUN, adapter=b"others")])
def test_a_gpu_that_is_not_deterministic_is_the_verdict_and_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], killed: Run
) -> None:
    again = dataclasses.replace(RUN, steps={**RUN.steps, 4: step(4, 1.0000001)})
    found = verdicts(tmp_path, capsys, RUN, killed, again)
    assert found[-1] == "not_deterministic"
    assert not {"equal", "not_equal"} & set(found)


def test_thorough_tries_every_way_and_says_what_it_could_not_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[tuple[dict[str, Any], bool]] = []

    def train(self: Selftest, jobs: Any, name: str, way: Any, *, kill: bool = False) -> Run:
        trained.append((way, kill))
        return RUN

    monkeypatch.setattr(Selftest, "_train", train)
    with grpc.insecure_channel("unix:/no/such/socket") as channel:
        Selftest(tmp_path, thorough=True)._go_further(channel, None)  # type: ignore[arg-type]
    assert trained == [(way, kill) for way in selftest._WAYS for kill in (False, False, True)]
    for way in selftest._WAYS:
        assert all(checked(name, value) == value for name, value in way.items())
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    codes = [one["finding"]["code"] for one in said if "finding" in one]
    assert codes.count("selftest.way") == codes.count("selftest.equal") == len(selftest._WAYS)
    assert "selftest.no_real_model" in codes


ASSERTIONS = """\
Assertion status system-wide:
   PreventUserIdleDisplaySleep    0
   PreventUserIdleSystemSleep     1
Listed by owning process:
   pid 4711(caffeinate): [0x0000a1] 00:00:03 PreventUserIdleSystemSleep named: "caffeinate command"
"""


@pytest.mark.parametrize(
    ("assertions", "launchd", "level", "failed"),
    [
        (ASSERTIONS, "gui/501 = {", Pressure.NORMAL, set()),
        (
            ASSERTIONS.replace("caffeinate", "coreaudiod"),
            "x",
            Pressure.NORMAL,
            {"selftest.not_awake"},
        ),
        (ASSERTIONS, "", Pressure.WARNING, {"selftest.no_launchd"}),
        (ASSERTIONS, "x", Pressure.UNKNOWN, {"selftest.no_pressure"}),
    ],
)
def test_what_a_mac_offers_is_tried(
    assertions: str,
    launchd: str,
    level: Pressure,
    failed: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(command: Sequence[str]) -> str:
        return launchd if "launchctl" in command[0] else assertions

    assert mac_services.mac_services(run, lambda: level) == [], "on no other system"
    monkeypatch.setattr(mac_services.sys, "platform", "darwin")
    monkeypatch.setattr(mac_services, "stay_awake", lambda seconds: nullcontext())
    found = mac_services.mac_services(run, lambda: level)
    assert {f.code for f in found if f.status is Status.FAILED} == failed
    assert len(found) == 3


def test_a_failure_asks_for_a_report() -> None:
    told = {"host": {"chip": "Apple M2", "system": "Darwin", "memory_total": 16 << 30}}
    assert conclusion({"passed": False, "machine": told})[-1].endswith("diagnose --bundle FILE")
    assert "Apple M2 · Darwin · 16.0 GiB" in machine(told)

"""`safetrain diagnose --selftest`: the whole of it, and that it would notice what is wrong."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safetrain.cli import main
from safetrain.terminal.selftest_text import conclusion, machine
from safetrain_shared.errors import Unreachable
from safetrain_shared.events import StepDone
from safetrain_shared.jobs import Plan
from safetrain_shared.settings import TrainingSettings
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
    def breaks_off() -> Iterator[dict[str, Any]]:
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
    monkeypatch.setattr("safetrain.selftest_process.selftest", lambda: 1 / 0)
    (tmp_path / "report.zip").touch()
    assert main(["diagnose", "--selftest", "--bundle", str(tmp_path / "report.zip")]) == 73


def step(number: int, loss: float, peak: int = 100) -> StepDone:
    return StepDone(number, 0, number, 4, loss, 1e-3, 1.0, 1, 1.0, peak, 1, 0.0)


RUN = Run(
    {n: step(n, loss) for n, loss in enumerate((4.0, 3.0, 2.0, 1.0), 1)},
    adapter=b"weights",
    plan=Plan(TrainingSettings(), "m", measured_peak=100),
    resumed=2,
    killed=3,
)


def verdicts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], alone: Run, killed: Run
) -> list[str]:
    selftest = Selftest(tmp_path)
    selftest._judge_training(alone)
    selftest._judge_resume(alone, killed)
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
        ({1: step(1, 4.0), 2: step(2, 1.0, peak=120)}, "peak_wrong"),
        ({1: step(1, 4.0, peak=80), 2: step(2, 1.0, peak=80)}, "peak_wrong"),
        ({1: step(1, 4.0), 2: step(2, 1.0, peak=105)}, "peak_right"),
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


def test_a_failure_asks_for_a_report() -> None:
    told = {"host": {"chip": "Apple M2", "system": "Darwin", "memory_total": 16 << 30}}
    assert conclusion({"passed": False, "machine": told})[-1].endswith("diagnose --bundle FILE")
    assert "Apple M2 · Darwin · 16.0 GB" in machine(told)

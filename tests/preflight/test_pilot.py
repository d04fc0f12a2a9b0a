"""The pilot: which rate its trials recommend, and a real one on a tiny model."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from safetrain_shared.findings import Status
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.messages import say
from safetrain_shared.settings import TrainingSettings
from safetraind.planner.pilot import pilot_request, rates, reason, recommended_rate
from safetraind.worker_messages.pilot_messages import PILOT, PilotResult, Trial
from tests.preflight.direct import DirectWorkers
from tests.tiny import make_chat_data, make_tiny_model


def test_the_rates_are_multiples_of_the_tables_and_it_comes_first() -> None:
    assert rates(2.5e-4) == [2.5e-4, 1e-3, 5e-4, 2e-3, 1.3e-4]


@pytest.mark.parametrize(
    ("losses", "rate"),
    [
        ({1e-4: 1.8, 4e-4: 1.0, 2e-4: 1.4, 8e-4: None}, 4e-4),
        ({1e-4: 1.8, 4e-4: 1.02, 2e-4: 1.4, 8e-4: 1.0}, 4e-4),  # equal, and lower
        ({5e-4: 0.80, 1e-3: 0.81, 2e-3: 0.79, 2.5e-4: 1.0}, 1e-3),  # the middle of equal ones
        ({2.5e-4: 0.06, 5e-4: 0.055, 1e-3: 0.05}, 1e-3),  # what is left is what the answers say
        ({2.5e-4: 0.009, 5e-4: 0.0001}, 2.5e-4),  # nothing is left to learn
        ({1e-4: 1.8, 4e-4: 3.0}, 1e-4),
        ({1e-4: 1.8}, 0.0),  # one trial compares nothing
        ({1e-4: 2.1, 4e-4: None}, 0.0),
    ],
)
def test_the_middle_one_of_the_rates_that_learn_the_most_is_recommended(
    losses: dict[float, float | None], rate: float
) -> None:
    result = PilotResult(2.0, 20, tuple(Trial(*trial) for trial in losses.items()))
    assert recommended_rate(result) == rate


def test_the_reason_names_what_was_tried_and_what_diverges() -> None:
    result = PilotResult(2.0, 20, (Trial(1e-4, 1.8), Trial(4e-4, 1.0), Trial(8e-4, None)))
    said = say(reason(result))
    assert "0.0004: 1.000" in said and "from 0.0008 on" in said and "20 steps" in said
    assert reason(None).status is Status.WARNING and "--pilot" in say(reason(None))


@pytest.mark.slow
def test_a_pilot_finds_the_rate_that_learns(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model")
    train, valid = make_chat_data(tmp_path / "data")
    spec = JobSpec(str(model), str(train), str(valid), str(tmp_path / "out"))
    settings = TrainingSettings(batch_size=4, max_seq_length=192, lora_layers=2, pilot_minutes=2.0)
    plan = dataclasses.replace(Plan(settings, str(model)), length_bucket=64)
    request = dataclasses.replace(pilot_request(spec, plan), rates=(1e-5, 1e-2), seconds=600.0)
    ended = asyncio.run(DirectWorkers(tmp_path).run_worker(PILOT, request, lease=True))
    found = ended.result
    assert found is not None, ended.log
    assert found.steps == 60, "the time was ample"
    by_rate = {trial.rate: trial.loss for trial in found.trials}
    assert by_rate[1e-2] is not None and by_rate[1e-2] < by_rate[1e-5]  # type: ignore[operator]
    assert recommended_rate(found) == 1e-2

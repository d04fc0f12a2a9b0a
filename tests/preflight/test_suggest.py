"""Which models fit recorded Macs, in which order, with which times, and what a refusal names."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest

from safetrain_shared.errors import InvalidInput, NotFound
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobSpec
from safetrain_shared.paths import Home
from safetrain_shared.settings import TrainingSettings
from safetraind.host import macos
from safetraind.models.suggested import SUGGESTED, Suggested
from safetraind.planner.measurement_cache import Known
from safetraind.planner.suggest import Speed, Suggestion, largest_fitting, smaller_model
from safetraind.preflight.suggesting import judged, known_speed, rough_lengths, usual_lengths
from safetraind.storage import documents
from safetraind.worker_messages.probe_messages import Measure, ProbeResult, Step
from tests.preflight.facts import GB, SHAPE, facts, question
from tests.preflight.macs import BUSY_M1_8, M1_PRO, M4_MAX, Mac

SPEC = JobSpec("", "", "", "/d/out")
BY_NAME = {model.repository: model for model in SUGGESTED}
MISTRAL = BY_NAME["mlx-community/Mistral-7B-Instruct-v0.3-4bit"]


def on(mac: Mac, speed: Speed | None = None) -> list[Suggestion]:
    known = facts(host=macos.gather(mac.run()), device=None)
    return judged(known, SPEC, usual_lengths(), speed).models


def fitting(mac: Mac) -> set[str]:
    return {s.model.repository for s in on(mac) if s.fits}


def test_a_larger_mac_fits_what_a_smaller_one_fits_and_more() -> None:
    small, medium, large = fitting(BUSY_M1_8), fitting(M1_PRO), fitting(M4_MAX)
    assert small < medium < large == set(BY_NAME)
    assert "mlx-community/Qwen3-1.7B-4bit" in small and MISTRAL.repository not in small


def test_classes_go_up_and_in_each_portuguese_comes_first() -> None:
    found = on(M4_MAX)
    order = [(["tiny", "small", "medium", "large"].index(s.size_class), s) for s in found]
    assert [place for place, _ in order] == sorted(place for place, _ in order)
    medium = [s.model for s in found if s.size_class == "medium"]
    assert medium[-1] is MISTRAL  # its card names no languages
    assert all(model.portuguese for model in medium[:-1])


def test_what_does_not_fit_says_what_it_takes() -> None:
    for suggestion in on(BUSY_M1_8):
        assert suggestion.peak > suggestion.model.shape.weight_bytes


def test_times_are_scaled_by_weights_and_trained_layers() -> None:
    settings = TrainingSettings(lora_layers=16, gradient_checkpointing=False)
    speed = Speed("mistral", MISTRAL.shape, settings, 250.0)
    of = {s.model.repository: s for s in on(M4_MAX, speed)}
    assert not any(s.seconds for s in on(M4_MAX))
    own = of[MISTRAL.repository].seconds
    # 1,000 samples of 512 tokens, three epochs, half as many trained layers as by default.
    trained = min(TrainingSettings().lora_layers or 32, 32) / 32
    assert own == pytest.approx(3 * 512_000 / 250 * (1 + trained) / 1.5, rel=0.05)
    smaller = of["mlx-community/Qwen3-4B-4bit"].seconds
    assert 0.3 * own < smaller < 0.8 * own


def test_the_largest_that_fits_is_named_and_knows_portuguese_where_one_does() -> None:
    large = dataclasses.replace(SHAPE, weight_bytes=60 * GB)
    named = largest_fitting(question(device="metal", shape=large)).model
    assert named.portuguese and named.billions > 7
    english = dataclasses.replace(BY_NAME["mlx-community/Qwen3-4B-4bit"], portuguese="")
    only: tuple[Suggested, ...] = (english, BY_NAME["mlx-community/Qwen3-0.6B-4bit"])
    assert largest_fitting(question(device="metal", shape=large), only).model is only[1]


def test_a_refusal_names_asmaller_model_and_none_that_is_larger() -> None:
    refusal = Finding(
        "plan.refused_model", Status.FAILED, True, args={"needed": 1, "room": 1, "budget": 1}
    )
    shape = dataclasses.replace(SHAPE, weight_bytes=60 * GB)
    (found,) = smaller_model(refusal, question(device="metal", shape=shape))
    assert found.code == "plan.smaller_model" and found.args["model"] in BY_NAME
    tiny = dataclasses.replace(SHAPE, weight_bytes=100)
    assert smaller_model(refusal, question(shape=tiny)) == []
    other = dataclasses.replace(refusal, args={"needed": 1, "room": 1})  # one array is too large
    assert smaller_model(other, question(device="metal", shape=shape)) == []


def test_lengths_come_from_the_bytes_of_the_lines(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text("\n".join(json.dumps({"text": "a" * n}) for n in (300, 300, 3000)) + "\n\n")
    lengths = rough_lengths(file)
    assert lengths.tokens == ((112, 2), (1008, 1)) and lengths.longest == 1008
    assert lengths.tops[0] == (1008, 504)


def test_bad_data_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        rough_lengths(tmp_path / "missing.jsonl")
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    for path in (empty, tmp_path):
        with pytest.raises(InvalidInput):
            rough_lengths(path)


def test_the_newest_measured_model_tells_the_speed(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert known_speed(home) is None
    home.learned.mkdir(parents=True)
    measure = Measure(TrainingSettings(), Step(1, 16, 8), peak=1)
    for name, time, speed in (("old", 1.0, 900.0), ("new", 2.0, 70.0)):
        fast, slow = (replace(measure, tokens_per_second=s) for s in (speed, speed / 2))
        kept = Known(ProbeResult(measures=(fast, slow)), name, SHAPE, time)
        documents.write(home.learned / f"{name}.json", kept)
    (home.learned / "older_version.json").write_text(json.dumps({"measures": [], "died": []}))
    found = known_speed(home)
    assert found is not None and (found.name, found.tokens_per_second) == ("new", 70.0)
    assert found.shape == SHAPE

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from safetrain_shared.findings import SECTIONS, Finding, Status
from safetrain_shared.jobs import JobSpec
from safetrain_shared.paths import Home
from safetrain_shared.settings import checked
from safetraind import host
from safetraind.host import HostFacts
from safetraind.preflight.gather_facts import gather_facts
from safetraind.preflight.preflight_run import (
    PreflightRun,
    Recommendation,
    SectionStarted,
    Summary,
)
from safetraind.preflight.submit_checks import quick
from safetraind.worker_messages.role import WorkerProgress
from tests.preflight.direct import DirectWorkers
from tests.tiny import make_chat_data, make_tiny_model

PROBE = """
import sys
if "probe" in sys.orig_argv:
    from safetraind.worker.probe import probe
"""
SLOW = (
    PROBE
    + """
    first_token = probe._first_token
    def crawl(loaded, clock):
        token = first_token(loaded, clock)
        clock.seconds_a_token = 60.0
        return token
    probe._first_token = crawl
"""
)
RAISES = (
    PROBE
    + """
    def raises(*_):
        raise LookupError("no such thing")
    probe._vocabulary = raises
    probe._run.__globals__["Exception"] = ZeroDivisionError  # nothing is caught
"""
)


@dataclasses.dataclass
class Place:
    """A model, data and a home of one test."""

    root: Path
    model: Path
    spec: JobSpec

    def run(
        self, workers: DirectWorkers | None = None, **changes: Any
    ) -> tuple[PreflightRun, list[Any]]:
        workers = workers or DirectWorkers(self.root / "runs")
        spec = dataclasses.replace(self.spec, **changes)
        preflight_run = PreflightRun(spec, workers, Home(self.root / "home"), self.model)

        async def steps() -> list[Any]:
            return [step async for step in preflight_run.run()]

        return preflight_run, asyncio.run(steps())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    model = make_tiny_model(tmp_path / "model", quantized=True)
    train, valid = make_chat_data(tmp_path / "data")
    spec = JobSpec(str(model), str(train), str(valid), str(tmp_path / "out"))
    return Place(tmp_path, model, spec)


def failed(steps: list[Any]) -> set[str]:
    return {s.code for s in steps if isinstance(s, Finding) and s.status is Status.FAILED}


def check_files(place: Place, steps: list[Any]) -> None:
    """Both files are there under the document's names, and say what was streamed."""
    summary = steps[-1]
    assert isinstance(summary, Summary)
    config = json.loads((place.root / "out/recommended_config.json").read_text())
    assert list(config)[:5] == [
        "batch_size",
        "gradient_accumulation",
        "max_seq_length",
        "learning_rate",
        "num_epochs",
    ]
    assert all(checked(name, value) is not None for name, value in config.items())
    report = json.loads((place.root / "out/preflight_report.json").read_text())
    assert report["plan"]["settings"] == config
    found = [s for s in steps if isinstance(s, Finding)]
    assert [f["code"] for f in report["findings"]] == [f.code for f in found]
    assert all(f["text"] for f in report["findings"])
    counted = [sum(f.status is status for f in found) for status in (Status.PASSED, Status.WARNING)]
    assert [summary.passed, summary.warnings] == counted


def test_a_whole_preflight_recommends_what_it_measured_and_the_next_one_remembers(
    place: Place,
) -> None:
    workers = DirectWorkers(place.root / "runs")
    # Other ways may be as fast, and would be run as well.
    chosen = {"batch_size": 4, "loss_chunk": 0}
    preflight_run, steps = place.run(workers, settings=chosen)
    assert [s.section for s in steps if isinstance(s, SectionStarted)] == list(SECTIONS)
    assert failed(steps) == set() and not preflight_run.blocked
    (recommended,) = (s for s in steps if isinstance(s, Recommendation))
    plan = recommended.plan
    assert recommended.measured and plan.measured_peak and plan.tokens_per_second > 0
    assert plan.settings.dequantize
    assert plan.total_steps == -(-24 // plan.settings.effective_batch) * 10, "so few samples"
    assert 0.9 < plan.predicted_peak / plan.measured_peak < 1.3
    assert (plan.degree, plan.margin) == ("measured", 0.03)
    assert workers.roles == ["inspect", "probe", "probe"]  # small shapes, then the plan's own
    phases = [s.phase for s in steps if isinstance(s, WorkerProgress)]
    assert {"probing", "loading", "first_token", "measuring"} <= {*phases}
    check_files(place, steps)

    again, _ = place.run(workers, settings=chosen)
    assert workers.roles == ["inspect", "probe", "probe", "inspect"]
    assert again.plan is not None and again.plan.settings == plan.settings
    assert again.plan.measured_peak == plan.measured_peak


def test_without_the_gpu_it_answers_and_says_that_nothing_was_measured(place: Place) -> None:
    workers = DirectWorkers(place.root / "runs", has_lease=False)
    preflight_run, steps = place.run(workers)
    assert workers.roles == ["inspect"]
    (first, second) = preflight_run._facts.data.train.preview
    assert first.line < second.line
    assert any(piece.learned for piece in first.pieces)
    assert "gpu.busy" in {s.code for s in steps if isinstance(s, Finding)}
    assert preflight_run.plan is not None and preflight_run.plan.measured_peak == 0
    assert preflight_run.plan.predicted_peak > 0 and preflight_run.plan.degree == "estimated"
    assert preflight_run.plan.reasons[-1].code == "plan.estimated"


def test_what_is_too_slow_to_measure_is_estimated_and_said(place: Place) -> None:
    (place.root / "sitecustomize.py").write_text(SLOW)
    environment = {"PYTHONPATH": str(place.root)}
    workers = DirectWorkers(place.root / "runs", environment=environment)
    preflight_run, steps = place.run(workers)
    found = {s.code: s for s in steps if isinstance(s, Finding)}
    assert found["model.too_slow"].status is Status.WARNING
    assert preflight_run.plan is not None and preflight_run.plan.degree == "estimated"
    assert workers.roles == ["inspect", "probe"] and not preflight_run.blocked


def test_a_probe_that_raises_is_told_with_its_words_and_not_taken_for_lack_of_memory(
    place: Place,
) -> None:
    (place.root / "sitecustomize.py").write_text(RAISES)
    environment = {"PYTHONPATH": str(place.root)}
    preflight_run, _ = place.run(DirectWorkers(place.root / "runs", environment=environment))
    (blocking,) = (f for f in preflight_run.findings if f.blocks and f.status is Status.FAILED)
    assert blocking.code == "model.probe_failed"
    assert "no such thing" in str(blocking.args["reason"])
    assert not preflight_run.measures


def test_bad_data_blocks_and_gives_no_recommendation(place: Place) -> None:
    bad = place.root / "bad.jsonl"
    bad.write_text('{"messages": []}\nnot json\n')
    preflight_run, steps = place.run(train=str(bad))
    assert preflight_run.blocked and preflight_run.plan is None
    assert "data.no_samples" in failed(steps)
    assert not (place.root / "out/recommended_config.json").exists()
    assert (place.root / "out/preflight_report.json").exists()


def test_a_missing_file_blocks_however_much_is_wrong_with_the_other(place: Place) -> None:
    bad = place.root / "bad.jsonl"
    bad.write_text("not json\n" * 150 + Path(place.spec.train).read_text())
    none = str(place.root / "none.jsonl")
    for files in ({"train": str(bad), "valid": none}, {"train": none, "valid": str(bad)}):
        preflight_run, steps = place.run(**files)
        assert preflight_run.blocked and preflight_run.plan is None
        assert "path.missing" in failed(steps)


def test_an_empty_file_blocks_and_is_named_once(place: Place) -> None:
    empty = place.root / "empty.jsonl"
    empty.write_text("\n\n")
    preflight_run, steps = place.run(valid=str(empty))
    said = [s for s in steps if isinstance(s, Finding) and s.args.get("path") == str(empty)]
    assert [s.code for s in said] == ["data.no_samples"] and preflight_run.blocked


def test_a_budget_too_small_is_refused_and_one_that_is_enough_is_kept(place: Place) -> None:
    blind = DirectWorkers(place.root / "blind", has_lease=False)
    preflight_run, steps = place.run(blind, memory_budget=150 << 20)
    assert preflight_run.blocked and preflight_run.plan is None
    assert any(code.startswith("plan.refused") for code in failed(steps))
    preflight_run, _ = place.run(memory_budget=600 << 20)
    assert preflight_run.plan is not None and preflight_run.plan.memory_budget == 600 << 20


def test_a_probe_that_dies_blocks_with_its_end(place: Place, monkeypatch: Any) -> None:
    workers = DirectWorkers(place.root / "runs", environment={"PYTHONPATH": str(place.root)})
    (place.root / "sitecustomize.py").write_text(
        "import sys, os\nif 'probe' in sys.orig_argv: os._exit(9)\n"
    )
    preflight_run, steps = place.run(workers)
    assert preflight_run.blocked and "gpu.broken" in failed(steps)


def test_a_damaged_model_is_named(place: Place) -> None:
    weights = place.model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    preflight_run, steps = place.run()
    assert preflight_run.blocked and "model.unreadable" in failed(steps)


def test_submitting_checks_at_once_what_needs_no_worker(place: Place) -> None:
    home = Home(place.root / "home")
    facts = gather_facts(place.spec, home, place.model)
    assert all(not f.blocks for f in quick(place.spec, facts))
    (place.model / "tokenizer.json").unlink()
    found = quick(place.spec, gather_facts(place.spec, home, place.model))
    assert {f.code for f in found if f.blocks} == {"model.incomplete"}


def test_facts_are_gathered_off_the_event_loop(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    gather = host.gather

    def noted() -> HostFacts:
        threads.append(threading.current_thread())
        return gather()

    monkeypatch.setattr(host, "gather", noted)
    blind = DirectWorkers(place.root / "blind", has_lease=False)
    place.run(blind)
    assert threads and threading.main_thread() not in threads

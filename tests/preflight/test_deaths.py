"""A probe or a training that dies: what it tells, what it rules out, and that it is remembered."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.paths import Home
from safetraind.planner import measurement_cache
from safetraind.preflight import measuring
from safetraind.preflight.preflight_run import PreflightRun
from safetraind.preflight.probing import Round
from safetraind.scheduler.oom_fallback import next_fallback
from safetraind.storage.run_folder import KeeperNote
from safetraind.worker_messages.probe_messages import PROBE
from safetraind.worker_messages.role import Role
from safetraind.worker_messages.worker_result import WorkerResult
from tests.preflight.direct import DirectWorkers
from tests.tiny import make_chat_data, make_tiny_model

DIES = """
import os, signal, sys
if "probe" in sys.orig_argv:
    from safetraind.worker.probe import probe
    {patch}
"""
WITHOUT = """
import sys
sys.modules["{package}"] = None  # importing it raises ImportError
"""
IN_LARGE_STEPS = """
    measure = probe.measure
    def dying(stepper, setup, vocabulary, time_for):
        if setup.step.rows == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return measure(stepper, setup, vocabulary, time_for)
    probe.measure = dying
"""
WHILE_LOADING = """
    probe.load = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
"""
OUT_OF_MEMORY_WHILE_LOADING = """
    def refuse(*_, **__):
        raise RuntimeError("[malloc] Unable to allocate 9999 bytes.")
    probe.load = refuse
"""


@dataclasses.dataclass
class Place:
    root: Path
    model: Path
    spec: JobSpec

    @property
    def home(self) -> Home:
        return Home(self.root / "home")

    def preflight(
        self, dies: str = "", without: str = "", has_lease: bool = True, **changes: Any
    ) -> tuple[PreflightRun, DirectWorkers]:
        environment = {}
        if dies or without:
            text = DIES.format(patch=dies) if dies else WITHOUT.format(package=without)
            (self.root / "dies").mkdir(exist_ok=True)
            (self.root / "dies/sitecustomize.py").write_text(text)
            environment = {"PYTHONPATH": str(self.root / "dies")}
        workers = DirectWorkers(self.root / "runs", has_lease, environment)
        spec = dataclasses.replace(self.spec, **changes)
        # thorough: on a busy machine too all is measured
        preflight_run = PreflightRun(spec, workers, self.home, self.model, thorough=True)

        async def go() -> None:
            async for _ in preflight_run.run():
                pass

        asyncio.run(go())
        return preflight_run, workers


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return _place(tmp_path)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Plan]:
    """A place whose model was measured in one preflight, and the plan of it."""
    place = _place(tmp_path_factory.mktemp("measured"))
    preflight_run, _ = place.preflight()
    assert preflight_run.plan is not None and preflight_run.plan.measured_peak
    return place, preflight_run.plan


@pytest.fixture
def learned(measured: tuple[Place, Plan], tmp_path: Path) -> Place:
    """The measured model and data, with a copy of the home that remembers them."""
    place, _ = measured
    shutil.copytree(place.home.root, tmp_path / "home")
    spec = dataclasses.replace(place.spec, output=str(tmp_path / "out"))
    return Place(tmp_path, place.model, spec)


@pytest.fixture
def first(measured: tuple[Place, Plan]) -> Plan:
    return measured[1]


def _place(root: Path) -> Place:
    model = make_tiny_model(root / "model")
    train, valid = make_chat_data(root / "data")
    return Place(root, model, JobSpec(str(model), str(train), str(valid), str(root / "out")))


def blocking(preflight_run: PreflightRun) -> dict[str, Finding]:
    return {f.code: f for f in preflight_run.findings if f.blocks and f.status is Status.FAILED}


def test_a_probe_that_dies_while_loading_blocks_with_how_it_died(place: Place) -> None:
    preflight_run, workers = place.preflight(WHILE_LOADING)
    assert preflight_run.plan is None
    assert "signal 9" in str(blocking(preflight_run)["model.loading_died"].args["reason"])
    assert workers.roles.count("probe") == 1


def test_memory_that_runs_out_while_loading_blocks_with_mlxs_words(place: Place) -> None:
    preflight_run, _ = place.preflight(OUT_OF_MEMORY_WHILE_LOADING)
    assert preflight_run.plan is None
    assert "Unable to allocate" in str(
        blocking(preflight_run)["model.does_not_load"].args["reason"]
    )


def test_a_death_in_a_trial_leads_to_something_leaner_and_is_remembered(place: Place) -> None:
    preflight_run, workers = place.preflight(IN_LARGE_STEPS)
    assert preflight_run.plan is not None and preflight_run.plan.measured_peak
    assert preflight_run.plan.settings.batch_size < 4
    assert workers.roles.count("probe") <= 5

    again, workers = place.preflight()  # nothing dies now
    assert again.plan is not None and again.plan.settings.batch_size < 4
    assert again.plan.measured_peak


def test_what_killed_a_training_is_not_recommended_again(learned: Place, first: Plan) -> None:
    measurement_cache.note_death(learned.home, first)
    second, _ = learned.preflight()
    assert second.plan is not None
    assert _work(second.plan) != _work(first)
    assert second.plan.settings.effective_batch == first.settings.effective_batch
    weights = learned.model.joinpath("model.safetensors").stat().st_size
    assert second.plan.measured_peak - weights < 0.9 * (first.measured_peak - weights)


def test_what_a_training_took_after_a_fallback_is_known(learned: Place, first: Plan) -> None:
    measurement_cache.note_death(learned.home, first)
    lower = next_fallback(first, allow_shorter=False)
    assert lower is not None
    worked, _ = lower
    assert worked.measured_peak == 0
    # Much leaner than what died, whichever plan the clock made the first.
    weights = learned.model.joinpath("model.safetensors").stat().st_size
    peak = (weights + first.measured_peak) // 2
    measurement_cache.note_success(learned.home, worked, peak=peak, tokens_per_second=1e9)
    batch, checkpointing, chunk = _work(worked)  # asked for: of several, the clock would choose
    asked = {
        "batch_size": batch,
        "gradient_accumulation": worked.settings.gradient_accumulation,
        "gradient_checkpointing": checkpointing,
        "loss_chunk": chunk,
    }
    second, _ = learned.preflight(settings=asked)
    assert second.plan is not None
    assert _work(second.plan) == _work(worked)
    assert second.plan.measured_peak == peak


@pytest.mark.parametrize(("package", "name"), [("orjson", "orjson"), ("numpy", "NumPy")])
def test_a_package_that_is_missing_is_named(place: Place, package: str, name: str) -> None:
    preflight_run, _ = place.preflight(without=package)
    missing = blocking(preflight_run)["dependencies.missing"]
    assert missing.args["name"] == name
    assert len([f for f in preflight_run.findings if f.code == "dependencies.found"]) > 5


def test_a_note_needs_a_model_that_is_there_and_a_plan_that_says_enough(
    learned: Place, first: Plan
) -> None:
    kept = {file.name: file.read_bytes() for file in learned.home.learned.iterdir()}
    measurement_cache.note_death(learned.home, dataclasses.replace(first, model_path="/gone"))
    measurement_cache.note_death(learned.home, dataclasses.replace(first, heaviest_width=0))
    assert kept == {file.name: file.read_bytes() for file in learned.home.learned.iterdir()}


def test_an_unreadable_file_of_what_was_learned_is_as_good_as_none(learned: Place) -> None:
    remembering, _ = learned.preflight(has_lease=False)
    assert remembering.plan is not None and remembering.plan.measured_peak
    (file,) = learned.home.learned.iterdir()
    file.write_text(json.dumps({"measures": 3}))
    without, _ = learned.preflight(has_lease=False)
    assert without.plan is not None and not without.plan.measured_peak


def _work(plan: Plan) -> tuple[object, ...]:
    settings = plan.settings
    return settings.batch_size, settings.gradient_checkpointing, settings.loss_chunk


@pytest.mark.parametrize(
    ("signal", "oom_kills", "limit", "interrupted"),
    [
        (9, 0, "", True),
        (15, None, "", True),
        (9, None, "", False),  # nobody knows: it may have been memory
        (9, 1, "", False),
        (9, 0, "memory", False),  # our own
        (11, 0, "", False),
    ],
)
def test_a_probe_that_somebody_else_killed_says_nothing_of_what_it_tried(
    signal: int, oom_kills: int | None, limit: str, interrupted: bool
) -> None:
    this = Round()
    note = KeeperNote(signal=signal, oom_kills=oom_kills)
    this.ended = WorkerResult(note, None, limit=limit)
    assert this.is_interrupted is interrupted


class Killed(DirectWorkers):
    """Somebody kills each probe after half a minute."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(root)
        self.left: list[float] = []
        self._passed = 0.0
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() + self._passed)
        monkeypatch.setattr(measuring, "time", clock)

    async def run_worker(
        self, role: Role[Any, Any], request: Any, **options: Any
    ) -> WorkerResult[Any]:
        if role is not PROBE or not request.setups:
            return await super().run_worker(role, request, **options)
        self.left.append(request.seconds)
        self._passed += 30.0
        return WorkerResult(KeeperNote(signal=9, oom_kills=0), None)


def test_a_probe_that_is_killed_is_repeated_within_the_same_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Killed(place.root / "runs", monkeypatch)
    preflight_run = PreflightRun(place.spec, workers, place.home, place.model)

    async def go() -> None:
        async for _ in preflight_run.run():
            pass

    asyncio.run(go())
    first, *others = workers.left
    assert [first - left for left in others] == pytest.approx([30.0, 60.0], abs=10.0)

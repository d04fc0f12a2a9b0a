"""What trainings taught about memory is kept for the planner."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from safetrain_shared.jobs import JobState
from safetraind.planner.measurement_cache import Known
from safetraind.storage import documents
from tests.daemon.conftest import MakeSpec
from tests.harness import DaemonProcess
from tests.tiny import make_tiny_model


def test_a_death_of_memory_and_what_worked_after_it_are_kept(
    playing: DaemonProcess, make_spec: MakeSpec, home: Path, tmp_path: Path
) -> None:
    model = make_tiny_model(tmp_path / "tiny")
    spec = make_spec(name="die=3,how=memory", num_epochs=1, batch_size=2)
    playing.start()
    job = playing.submit(dataclasses.replace(spec, model=str(model))).job.id
    playing.wait_for_state(job, JobState.SUCCEEDED)
    (file,) = (home / "learned").iterdir()
    kept = documents.read(file, Known)
    assert kept is not None
    died, worked = kept.found.measures
    assert died.died and not worked.died
    assert (died.settings.batch_size, died.step.rows, died.step.width) == (2, 2, 64)
    assert (worked.settings.batch_size, worked.settings.gradient_accumulation) == (1, 2)
    assert (worked.step.rows, worked.peak) == (1, 1)


def test_other_deaths_teach_nothing_about_memory(
    playing: DaemonProcess, make_spec: MakeSpec, home: Path, tmp_path: Path
) -> None:
    model = make_tiny_model(tmp_path / "tiny")
    spec = make_spec(name="die=3,how=exit", num_epochs=1)
    playing.start()
    job = playing.submit(dataclasses.replace(spec, model=str(model))).job.id
    playing.wait_for_state(job, JobState.FAILED)
    assert not (home / "learned").exists()

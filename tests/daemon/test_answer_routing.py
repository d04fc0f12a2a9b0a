"""Who answers a question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from safetrain_shared.errors import Busy, NotFound, SafetrainError
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobState as S
from safetraind.answer_routing import Candidate, ServerRoute, TrainingRoute, route
from safetraind.storage import training_state
from safetraind.storage.training_state import TrainingState


def candidate(folder: Path, job_id: int, state: S, *, trained: bool = True) -> Candidate:
    output = folder / str(job_id)
    for name in ("adapters", "checkpoint_epoch_0_step_5") if trained else ():
        (output / name).mkdir(parents=True)
        (output / name / "adapters.safetensors").write_bytes(b"")
    if trained:
        training_state.write(output, TrainingState(job_id, "succeeded", "fingerprint"))
    return Candidate(job_id, state, f"model-{job_id}", output, folder, finished=float(job_id))


def test_without_any_job_the_base_answers_and_says_so() -> None:
    chosen = route([])
    assert isinstance(chosen, ServerRoute)
    assert (chosen.model, chosen.adapter) == ("", None)
    assert chosen.note is not None
    assert chosen.note.code == "ask.base_only"


def test_with_nothing_training_the_newest_finished_job_answers(tmp_path: Path) -> None:
    jobs = [
        candidate(tmp_path, 1, S.SUCCEEDED),
        candidate(tmp_path, 2, S.SUCCEEDED),
        candidate(tmp_path, 3, S.FAILED, trained=False),
        candidate(tmp_path, 4, S.QUEUED, trained=False),
    ]
    assert route(jobs) == ServerRoute("model-2", tmp_path / "2" / "adapters", 2)
    assert route(jobs, job_id=1) == ServerRoute("model-1", tmp_path / "1" / "adapters", 1)
    assert route(jobs, base=True) == ServerRoute("model-2", None, 2)
    chosen = "checkpoint_epoch_0_step_5"
    assert route(jobs, job_id=1, checkpoint=chosen) == ServerRoute(
        "model-1", tmp_path / "1" / chosen, 1
    )
    assert route(jobs, model="/m") == ServerRoute("/m")


def test_while_a_job_trains_it_answers_and_others_are_refused(tmp_path: Path) -> None:
    jobs = [candidate(tmp_path, 1, S.SUCCEEDED), candidate(tmp_path, 2, S.RUNNING)]
    assert route(jobs) == TrainingRoute(2)
    assert route(jobs, job_id=2) == TrainingRoute(2)
    assert route(jobs, base=True) == TrainingRoute(2)
    assert refused(Busy, jobs, job_id=1) == "ask.busy_other_job"
    assert refused(Busy, jobs, model="/m") == "ask.busy_other_model"
    assert refused(Busy, jobs, job_id=2, checkpoint="x") == "ask.busy_checkpoint"
    assert refused(Busy, jobs, checkpoint="x") == "ask.busy_checkpoint"


def test_while_a_job_is_checked_it_is_not_called_a_training(tmp_path: Path) -> None:
    jobs = [candidate(tmp_path, 1, S.SUCCEEDED), candidate(tmp_path, 2, S.CHECKING)]
    for options in ({}, {"job_id": 1}, {"job_id": 2}, {"model": "/m"}, {"base": True}):
        assert refused(Busy, jobs, **options) == "ask.busy_checking"


def test_a_job_never_answers_with_the_weights_of_another_in_its_folder(tmp_path: Path) -> None:
    first = candidate(tmp_path, 1, S.SUCCEEDED)
    training_state.write(first.output, TrainingState(2, "training", "fingerprint"))
    second = Candidate(2, S.CANCELLED, "model-2", first.output, tmp_path, finished=2.0)
    assert route([first, second]) == ServerRoute("model-2", first.output / "adapters", 2)
    assert refused(NotFound, [first, second], job_id=1) == "ask.adapter_replaced"
    assert route([first]) == ServerRoute("", note=Finding("ask.base_only"))


def test_a_job_never_answers_with_the_weights_of_another_homes_job_of_its_number(
    tmp_path: Path,
) -> None:
    job, other = candidate(tmp_path, 1, S.CANCELLED), tmp_path / "other"
    other.mkdir()
    (other / "jobs.db").touch()
    training_state.write(job.output, TrainingState(1, "succeeded", "fingerprint", home=str(other)))
    assert refused(NotFound, [job], job_id=1) == "ask.adapter_of_other_home"
    assert route([job]) == ServerRoute("", note=Finding("ask.base_only"))
    (tmp_path / "link").symlink_to(other)
    assert training_state.read(job.output).belongs_to(1, tmp_path / "link")  # type: ignore[union-attr]
    (other / "jobs.db").unlink()  # moved: the number alone decides
    assert route([job]) == ServerRoute("model-1", job.output / "adapters", 1)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    jobs = [candidate(tmp_path, 1, S.FAILED, trained=False)]
    assert refused(NotFound, jobs, job_id=9) == "job.unknown"
    assert refused(NotFound, jobs, job_id=1) == "ask.no_adapter"
    assert refused(NotFound, jobs, job_id=1, checkpoint="../../etc") == "ask.checkpoint_unknown"


def refused(kind: type[SafetrainError], jobs: list[Candidate], **options: Any) -> str:
    """The code with which `route` refuses; it names the job that is in the chosen."""
    with pytest.raises(kind) as caught:
        route(jobs, **options)
    assert kind is not Busy or caught.value.args_by_name["training"] == 2
    return caught.value.code


def test_a_paused_job_answers_before_one_that_ended(tmp_path: Path) -> None:
    paused, ended = (
        candidate(tmp_path, 1, S.PAUSED),
        candidate(tmp_path, 2, S.SUCCEEDED),
    )
    chosen = route([paused, ended])
    assert isinstance(chosen, ServerRoute) and chosen.job_id == 1

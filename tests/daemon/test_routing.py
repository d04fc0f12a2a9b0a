"""Who answers a question."""

from __future__ import annotations

from pathlib import Path

import pytest

from safetrain_shared.errors import Busy, NotFound
from safetrain_shared.jobs import JobState as S
from safetraind.jobs.routing import Candidate, Training, Warm, route


def candidate(folder: Path, job_id: int, state: S, *, trained: bool = True) -> Candidate:
    output = folder / str(job_id)
    for name in ("adapters", "checkpoint_epoch_0_step_5") if trained else ():
        (output / name).mkdir(parents=True)
        (output / name / "adapters.safetensors").write_bytes(b"")
    return Candidate(job_id, state, f"model-{job_id}", output, finished=float(job_id))


def test_without_any_job_the_base_answers_and_says_so() -> None:
    way = route([])
    assert isinstance(way, Warm)
    assert (way.model, way.adapter) == ("", None)
    assert way.note is not None
    assert way.note.code == "ask.base_only"


def test_with_nothing_training_the_newest_finished_job_answers(tmp_path: Path) -> None:
    jobs = [
        candidate(tmp_path, 1, S.SUCCEEDED),
        candidate(tmp_path, 2, S.SUCCEEDED),
        candidate(tmp_path, 3, S.FAILED, trained=False),
        candidate(tmp_path, 4, S.QUEUED, trained=False),
    ]
    assert route(jobs) == Warm("model-2", tmp_path / "2" / "adapters", 2)
    assert route(jobs, job_id=1) == Warm("model-1", tmp_path / "1" / "adapters", 1)
    assert route(jobs, base=True) == Warm("model-2", None, 2)
    chosen = "checkpoint_epoch_0_step_5"
    assert route(jobs, job_id=1, checkpoint=chosen) == Warm("model-1", tmp_path / "1" / chosen, 1)
    assert route(jobs, model="/m") == Warm("/m")


def test_while_a_job_trains_it_answers_and_others_are_refused(tmp_path: Path) -> None:
    jobs = [candidate(tmp_path, 1, S.SUCCEEDED), candidate(tmp_path, 2, S.RUNNING)]
    assert route(jobs) == Training(2)
    assert route(jobs, job_id=2) == Training(2)
    assert route(jobs, base=True) == Training(2)
    for options in ({"job_id": 1}, {"model": "/m"}, {"job_id": 2, "checkpoint": "x"}):
        with pytest.raises(Busy) as caught:
            route(jobs, **options)  # type: ignore[arg-type]
        assert caught.value.args_by_name["training"] == 2


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    jobs = [candidate(tmp_path, 1, S.FAILED, trained=False)]
    with pytest.raises(NotFound, match=r"job\.unknown"):
        route(jobs, job_id=9)
    with pytest.raises(NotFound, match=r"ask\.no_adapter"):
        route(jobs, job_id=1)
    with pytest.raises(NotFound, match=r"ask\.checkpoint_unknown"):
        route(jobs, job_id=1, checkpoint="../../etc")

"""`--report-to tensorboard`: what TensorBoard's own reader finds is what the job told."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from safetrain.cli import main
from safetrain_proto.v1.jobs_pb2 import SubmitResponse
from safetrain_shared.jobs import JobState
from tests.client.builders import NOON, complete_run, event, job, step
from tests.client.fake import FakeDaemon

Capture = pytest.CaptureFixture[str]


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def curve(found: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(point.step, round(point.value, 6)) for point in found.Scalars(tag)]


@pytest.fixture
def ended(daemon: FakeDaemon) -> FakeDaemon:
    """Job 1 has ended; its output folder is `out` in the current folder."""
    done = job(1, JobState.SUCCEEDED)
    done.spec.output = str(Path.cwd() / "out")
    daemon.jobs, daemon.events = [done], complete_run()
    daemon.submitted = SubmitResponse(job=done)
    daemon.ended.set()
    return daemon


def test_the_curves_of_a_watched_job_can_be_read_back(ended: FakeDaemon, capsys: Capture) -> None:
    assert main(["watch", "1", "--report-to", "tensorboard"]) == 0
    assert "tensorboard --logdir out/tensorboard" in capsys.readouterr().err
    found = read(Path("out/tensorboard/job-1"))
    assert curve(found, "loss/training") == [(10, 3.0), (20, 2.0), (30, 1.0)]
    assert curve(found, "loss/validation") == [(20, 2.25)]
    assert curve(found, "memory_GiB/footprint") == [(10, 3.0), (20, 3.0), (30, 3.0)]
    assert found.Scalars("learning_rate")[0].wall_time == NOON + 5
    assert {"gradient_norm", "tokens_per_second", "epoch"} < set(found.Tags()["scalars"])


def test_a_step_that_ran_again_and_a_job_watched_twice_stand_once(ended: FakeDaemon) -> None:
    ended.events += [event(n, step(n, 9.0), attempt=2) for n in (20, 30, 40)]
    for _ in range(2):
        assert main(["watch", "1", "--quiet", "--report-to", "tensorboard"]) == 0
    again = [(10, 3.0), (20, 9.0), (30, 9.0), (40, 9.0)]
    assert curve(read(Path("out/tensorboard/job-1")), "loss/training") == again


def test_submit_follows_the_job_into_the_folder_that_is_named(ended: FakeDaemon) -> None:
    assert main(["submit", "--report-to", "tensorboard", "--log-dir", "logs"]) == 0
    assert len(curve(read(Path("logs/job-1")), "loss/training")) == 3


@pytest.mark.parametrize("verb", ["watch", "submit"])
def test_without_its_library_it_says_what_to_install_and_does_nothing(
    verb: str, ended: FakeDaemon, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name)
    )
    assert main([verb, "--report-to", "tensorboard"]) == 69
    assert "pip install 'safetrain[tensorboard]'" in capsys.readouterr().err
    assert ended.requests == []


def test_a_folder_that_cannot_be_made_is_named(ended: FakeDaemon, capsys: Capture) -> None:
    Path("logs").write_text("a file")
    assert main(["watch", "1", "--report-to", "tensorboard", "--log-dir", "logs"]) == 77
    assert str(Path.cwd() / "logs" / "job-1") in capsys.readouterr().err

"""Two homes and one output folder: neither reads, writes or removes what is the other's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from safetrain_proto.v1 import jobs_pb2
from safetrain_shared.jobs import JobState
from safetraind.storage import training_state
from safetraind.storage.training_state import TrainingState
from tests.daemon.conftest import PLAY, MakeSpec
from tests.daemon.test_faults import error_of
from tests.harness import DaemonProcess, wait_for


@pytest.fixture
def other(tmp_path: Path) -> Iterator[DaemonProcess]:
    """A daemon of another home."""
    process = DaemonProcess(tmp_path / "other", PLAY)
    try:
        yield process
    finally:
        process.end()


def test_one_output_folder_is_never_trained_by_two_homes_at_once(
    playing: DaemonProcess, other: DaemonProcess, make_spec: MakeSpec
) -> None:
    other.start()
    first = playing.start().submit(make_spec(name="pace=2")).job.id
    wait_for(lambda: playing.job(first).phase == "training")
    second = other.submit(make_spec(name="pace=2")).job.id
    other.wait_for_state(second, JobState.INTERRUPTED)
    assert other.job(second).cause.code == "job.output_busy"
    assert not other.workers()
    playing.jobs.Cancel(jobs_pb2.JobRequest(id=first))
    playing.wait_for_state(first)


def test_removing_a_job_leaves_the_files_of_another_homes_job_of_its_number(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec(name="pace=0", num_epochs=1)
    job = playing.start().submit(spec).job.id
    playing.wait_for_state(job)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "jobs.db").touch()
    output = Path(spec.output)
    state = TrainingState(job, "succeeded", "fingerprint", home=str(tmp_path / "other"))
    training_state.write(output, state)
    (output / "adapters").mkdir()
    (output / "adapters" / "adapters.safetensors").write_text("theirs")
    playing.jobs.Remove(jobs_pb2.RemoveJobRequest(id=job, files=True))
    assert (output / "adapters" / "adapters.safetensors").read_text() == "theirs"


@pytest.mark.parametrize(
    ("output", "code"),
    [
        ("home", "path.ours"),
        ("home/runs/1", "path.ours"),
        ("home/x/../runs", "path.ours"),
        ("home/models/x", "path.ours"),
        ("link/runs", "path.ours"),
        ("model", "path.of_the_job"),
        ("model/sub", "path.of_the_job"),
        ("train.jsonl", "path.not_a_folder"),
        ("train.jsonl/out", "path.not_a_folder"),
        ("/proc/x", "path.of_the_system"),
        ("/dev", "path.of_the_system"),
        ("/", "path.of_the_system"),
    ],
)
def test_a_folder_that_cannot_be_an_output_folder_is_refused(
    output: str, code: str, playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "home")
    playing.start()
    with pytest.raises(grpc.RpcError) as caught:
        playing.submit(make_spec(output))
    assert error_of(caught).code == code


def test_a_key_that_was_used_for_another_request_is_a_conflict(
    playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    playing.start().submit(make_spec(name="pace=0"), idempotency_key="k")
    with pytest.raises(grpc.RpcError) as caught:
        playing.submit(make_spec("elsewhere", learning_rate=0.5), idempotency_key="k")
    error = error_of(caught)
    assert error.code == "job.other_request"
    assert "learning_rate" in error.args_by_name["differences"]


def test_a_symlinked_home_is_served(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    daemon = DaemonProcess(tmp_path / "link", PLAY)
    try:
        assert daemon.start().info().home == str(tmp_path / "real")
    finally:
        daemon.end()
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "real" / "jobs.db").stat().st_mode & 0o777 == 0o600

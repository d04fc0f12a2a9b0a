"""A full disk pauses a run at its last checkpoint; with room again it goes on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from safetrain_shared.events import CheckpointSaved, Notice, Outcome
from tests.trainer.runs import make_run

pytestmark = pytest.mark.compiled

Data = tuple[Path, Path]


def can_mount() -> bool:
    if not shutil.which("unshare"):
        return False
    tried = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="mounting a small file system is not allowed here")
def test_a_full_output_disk_pauses_the_run_with_a_word(
    tmp_path: Path, model: Path, data: Data
) -> None:
    run = make_run(tmp_path, model, data)
    run.output.mkdir()
    worker = f"{sys.executable} -m safetraind.worker train {run.folder.root}"
    script = f"mount -t tmpfs -o size=260k tmpfs {run.output} && exec {worker}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    outcome = run.bodies()[-1]
    assert isinstance(outcome, Outcome)
    assert outcome.cause is not None
    assert (outcome.outcome, outcome.cause.code) == ("paused", "train.disk_full")
    assert len(run.of(CheckpointSaved)) == 1  # one fits, the next does not
    assert run.finish(attempt=2).outcome == "succeeded"


@pytest.mark.skipif(not can_mount(), reason="mounting a small file system is not allowed here")
def test_an_output_disk_that_can_only_be_read_pauses_the_run_with_a_word(
    tmp_path: Path, model: Path, data: Data
) -> None:
    run = make_run(tmp_path, model, data, num_epochs=1)
    run.output.mkdir()
    worker = f"{sys.executable} -m safetraind.worker train {run.folder.root}"
    script = f"mount -t tmpfs -o ro tmpfs {run.output} && exec {worker}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    outcome = run.bodies()[-1]
    assert isinstance(outcome, Outcome)
    assert outcome.cause is not None
    assert (outcome.outcome, outcome.cause.code) == ("paused", "train.disk_read_only")
    assert run.finish(attempt=2).outcome == "succeeded"


def test_a_full_home_disk_pauses_the_run_at_its_next_checkpoint(
    tmp_path: Path, model: Path, data: Data
) -> None:
    run = make_run(tmp_path, model, data)
    run.folder.events.symlink_to("/dev/full")
    assert run.start().wait(120) == 74  # there is no room for a last event either
    assert "Traceback" not in run.folder.log.read_text()
    assert [p.name for p in run.output.glob("checkpoint_*")] == ["checkpoint_epoch_0_step_3"]
    run.folder.events.unlink()
    assert run.finish(attempt=2).outcome == "succeeded"
    assert run.of(Notice)[0].finding.args["step"] == 3

"""An output folder: what continues, what is refused, and whose files are touched."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from safetrain_shared.errors import AlreadyFinished, Conflict, NotAllowed
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.settings import TrainingSettings
from safetraind.storage import output_folder, training_state
from safetraind.storage.job_document import DataFile, JobDocument, ModelSource
from safetraind.storage.training_state import TrainingState


def document(**settings: Any) -> JobDocument:
    spec = JobSpec("/m", "/t", "/v", "/o", settings=settings)
    data = {"train": DataFile("/t", "1"), "valid": DataFile("/v", "2")}
    return JobDocument(spec, ModelSource("/m"), data)


def write_run(
    output: Path, of: JobDocument, state: str = "training", job: int = 3, **more: Any
) -> None:
    for name in ("adapters", "plots", "checkpoint_epoch_0_step_5"):
        (output / name).mkdir(parents=True)
    for name in ("adapters", "checkpoint_epoch_0_step_5"):
        (output / name / "adapters.safetensors").write_bytes(b"weights")
    (output / "plots" / "loss.png").write_bytes(b"picture")
    (output / "plots" / "report.html").write_text("a page")
    (output / "tensorboard" / "job-3").mkdir(parents=True)
    (output / "tensorboard" / "job-3" / "events.out.tfevents.1.vm.2.0").write_bytes(b"curves")
    (output / "training_metrics.csv").write_text("step\n")
    training_state.write(output, TrainingState(job, state, of.fingerprint, spec=of.spec, **more))


def files(folder: Path) -> list[str]:
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    assert output_folder.examine(tmp_path / "none", document()) is None


def test_the_same_training_continues(tmp_path: Path) -> None:
    write_run(tmp_path / "out", document(seed=1))
    state = output_folder.examine(tmp_path / "out", document(seed=1))
    assert state is not None
    assert state.job == 3


def test_other_settings_and_other_data_are_named(tmp_path: Path) -> None:
    write_run(tmp_path / "out", document(lora_rank=8))
    with pytest.raises(Conflict) as caught:
        output_folder.examine(tmp_path / "out", document(lora_rank=16))
    assert caught.value.args_by_name["differences"] == "lora_rank: 8 → 16"
    known = document(lora_rank=8)
    data = {**known.data, "train": DataFile("/t", "other")}
    changed = replace(known, spec=replace(known.spec, train="/t2"), data=data)
    with pytest.raises(Conflict) as caught:
        output_folder.examine(tmp_path / "out", changed)
    assert caught.value.args_by_name["differences"] == "train: /t → /t2"
    with pytest.raises(Conflict) as caught:
        output_folder.examine(tmp_path / "out", replace(known, data=data))
    assert caught.value.code == "job.output_data_differs"
    assert caught.value.args_by_name["train"] == "/t"


def test_the_same_name_for_another_model_folder_is_told_as_the_model(tmp_path: Path) -> None:
    write_run(tmp_path / "out", document(), plan=Plan(TrainingSettings(), "/m"))
    moved = replace(document(), model=ModelSource("/elsewhere/m"))
    with pytest.raises(Conflict) as caught:
        output_folder.examine(tmp_path / "out", moved)
    assert caught.value.args_by_name["differences"] == "model: /m → /elsewhere/m"


def test_a_finished_training_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "out", document(), state="succeeded")
    with pytest.raises(AlreadyFinished) as caught:
        output_folder.examine(tmp_path / "out", document())
    assert caught.value.code == "job.output_finished"


def test_moving_aside_takes_our_files_and_only_them(tmp_path: Path) -> None:
    output = tmp_path / "out"
    write_run(output, document())
    (output / "plots" / "mine.png").write_bytes(b"my picture")
    (output / "notes.txt").write_text("mine")
    (tmp_path / "out.previous-1").mkdir()
    aside = output_folder.move_aside(output)
    assert aside == tmp_path / "out.previous-2"
    assert files(output) == ["notes.txt", "plots/mine.png"]
    assert "adapters/adapters.safetensors" in files(aside)
    assert output_folder.move_aside(output) is None


@pytest.mark.parametrize("fault", [errno.EXDEV, errno.EACCES, errno.EPERM])
def test_what_cannot_be_moved_aside_stays_whole_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    output = tmp_path / "out"
    write_run(output, document())
    before, rename, renamed = files(output), Path.rename, []

    def refuse_the_third(self: Path, target: Path) -> Path:
        renamed.append(self)
        if len(renamed) == 3:
            raise OSError(fault, os.strerror(fault), str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_the_third)
    with pytest.raises(NotAllowed) as caught:
        output_folder.move_aside(output)
    assert caught.value.code == "job.not_aside"
    assert caught.value.args_by_name["reason"] == os.strerror(fault)
    assert files(output) == before
    assert not (tmp_path / "out.previous-1").exists()


def test_removing_tells_what_it_kept(tmp_path: Path) -> None:
    output = tmp_path / "out"
    write_run(output, document())
    (output / "notes.txt").write_text("mine")
    assert output_folder.remove(str(output), 3, tmp_path) == [str(output / "notes.txt")]
    assert files(output) == ["notes.txt"]


def test_removing_leaves_another_jobs_training_alone(tmp_path: Path) -> None:
    write_run(tmp_path / "out", document(), job=4)
    before = files(tmp_path / "out")
    output_folder.remove(str(tmp_path / "out"), 3, tmp_path)
    assert files(tmp_path / "out") == before


def test_a_folder_of_ours_alone_is_gone_after_removing(tmp_path: Path) -> None:
    write_run(tmp_path / "out", document())
    assert output_folder.remove(str(tmp_path / "out"), 3, tmp_path) == []
    assert not (tmp_path / "out").exists()


def test_the_results_have_no_file_of_a_checkpoint_that_is_being_written(tmp_path: Path) -> None:
    adapter = tmp_path / "adapters" / "adapters.safetensors"
    adapter.parent.mkdir()
    adapter.touch()
    whole = tmp_path / "checkpoint_epoch_1_step_2"
    partial = tmp_path / f".{whole.name}.partial"
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            partial.mkdir()
            (partial / adapter.name).touch()
            partial.rename(whole)
            shutil.rmtree(whole)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        listed = {tuple(output_folder.results(tmp_path)) for _ in range(500)}
    finally:
        over.set()
        writer.join()
    assert listed == {(adapter,)}

"""An output folder: what continues, what is refused, and whose files are touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from safetrain_shared.errors import AlreadyFinished, Conflict
from safetraind.files import training_state
from safetraind.files.training_state import TrainingState
from safetraind.jobs import outputs


def document(**settings: Any) -> dict[str, Any]:
    spec = {"model": "/m", "train": "/t", "valid": "/v", "settings": settings}
    hashes = {"train": {"sha256": "1"}, "valid": {"sha256": "2"}}
    return {"spec": spec, "seed": 0, "model": {"path": "/m"}, "data": hashes}


def write_run(output: Path, of: dict[str, Any], state: str = "training", job: int = 3) -> None:
    for name in ("adapters", "plots", "checkpoint_epoch_0_step_5"):
        (output / name).mkdir(parents=True)
    for name in ("adapters", "checkpoint_epoch_0_step_5"):
        (output / name / "adapters.safetensors").write_bytes(b"weights")
    (output / "plots" / "loss.png").write_bytes(b"picture")
    (output / "plots" / "report.html").write_text("a page")
    (output / "training_metrics.csv").write_text("step\n")
    print_of = training_state.fingerprint(of)
    training_state.write(output, TrainingState(job, state, print_of, spec=of["spec"]))


def files(folder: Path) -> list[str]:
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    assert outputs.examine(tmp_path / "none", document()) is None


def test_the_same_training_continues(tmp_path: Path) -> None:
    write_run(tmp_path / "out", document(seed=1))
    state = outputs.examine(tmp_path / "out", document(seed=1))
    assert state is not None
    assert state.job == 3


def test_other_settings_and_other_data_are_named(tmp_path: Path) -> None:
    write_run(tmp_path / "out", document(lora_rank=8))
    with pytest.raises(Conflict) as caught:
        outputs.examine(tmp_path / "out", document(lora_rank=16))
    assert caught.value.args_by_name["differences"] == "lora_rank (8, now 16)"
    changed = document(lora_rank=8)
    changed["data"]["train"] = {"sha256": "other"}
    with pytest.raises(Conflict) as caught:
        outputs.examine(tmp_path / "out", changed)
    assert caught.value.args_by_name["differences"] == "data"


def test_a_finished_training_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "out", document(), state="succeeded")
    with pytest.raises(AlreadyFinished, match=r"job\.output_finished"):
        outputs.examine(tmp_path / "out", document())


def test_moving_aside_takes_our_files_and_only_them(tmp_path: Path) -> None:
    output = tmp_path / "out"
    write_run(output, document())
    (output / "plots" / "mine.png").write_bytes(b"my picture")
    (output / "notes.txt").write_text("mine")
    (tmp_path / "out.previous-1").mkdir()
    aside = outputs.move_aside(output)
    assert aside == tmp_path / "out.previous-2"
    assert files(output) == ["notes.txt", "plots/mine.png"]
    assert "adapters/adapters.safetensors" in files(aside)
    assert outputs.move_aside(output) is None


def test_removing_tells_what_it_kept(tmp_path: Path) -> None:
    output = tmp_path / "out"
    write_run(output, document())
    (output / "notes.txt").write_text("mine")
    assert outputs.remove(str(output), 3) == [str(output / "notes.txt")]
    assert files(output) == ["notes.txt"]


def test_removing_leaves_another_jobs_training_alone(tmp_path: Path) -> None:
    write_run(tmp_path / "out", document(), job=4)
    before = files(tmp_path / "out")
    outputs.remove(str(tmp_path / "out"), 3)
    assert files(tmp_path / "out") == before


def test_a_folder_of_ours_alone_is_gone_after_removing(tmp_path: Path) -> None:
    write_run(tmp_path / "out", document())
    assert outputs.remove(str(tmp_path / "out"), 3) == []
    assert not (tmp_path / "out").exists()

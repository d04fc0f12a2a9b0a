"""What a machine refuses a rank for, and which files of a leader it takes."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from safetrain_proto.v1.machines_pb2 import LendRequest, RankFile, RankTerms
from safetrain_shared.errors import SafetrainError
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.paths import Home
from safetrain_shared.settings import TrainingSettings
from safetraind.machines.rank_files import newest_checkpoint, pieces, receive_files
from safetraind.machines.terms import check, own_plan, own_terms, read_terms
from safetraind.storage.job_document import JobDocument, ModelSource
from safetraind.storage.manifest import write_manifest

CHECKPOINT = "checkpoint_epoch_0_step_2"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def terms_for(model: Path, **plan: int) -> RankTerms:
    spec = JobSpec("demo", train="/d/train.jsonl", valid="", output=str(model.parent / "out"))
    document = JobDocument(spec, ModelSource("demo"), {})
    plan_here = Plan(TrainingSettings(), str(model), **plan)
    return own_terms(document, plan_here, model, Home(model.parent / "leader"))


def refusal(message: RankTerms, home: Path, model: Path) -> SafetrainError:
    with pytest.raises(SafetrainError) as refused:
        check(read_terms(message), Home(home), model)
    return refused.value


def test_a_machine_refuses_other_versions_clocks_models_and_what_does_not_fit(
    model: Path, tmp_path: Path
) -> None:
    terms = read_terms(terms_for(model, predicted_peak=1 << 20))
    budget = check(terms, Home(tmp_path), model)
    assert terms.plan is not None
    plan = own_plan(terms.plan, tmp_path / "copy", budget)
    assert plan.model_path == str(tmp_path / "copy") and plan.memory_limit == budget.limit

    assert refusal(terms_for(model), tmp_path / "leader", model).code == "machines.itself"
    other = terms_for(model)
    other.packages["mlx"] = "0.1"
    assert refusal(other, tmp_path, model).code == "machines.versions"
    late = terms_for(model)
    late.now = time.time() - 90
    found = refusal(late, tmp_path, model)
    assert found.code == "machines.clock" and int(str(found.args_by_name["seconds"])) >= 90
    large = terms_for(model, predicted_peak=1 << 60)
    assert refusal(large, tmp_path, model).code == "machines.memory"
    broken = terms_for(model)
    broken.job = "[" * 100_000
    assert refusal(broken, tmp_path, model).code == "request.malformed"
    message = terms_for(model)
    (model / "model.safetensors").write_bytes(b"another")
    found = refusal(message, tmp_path, model)
    assert (found.code, found.args_by_name["files"]) == ("machines.model", "model.safetensors")


def received(folder: Path, files: Sequence[RankFile], data: Sequence[bytes]) -> None:
    async def requests() -> AsyncIterator[LendRequest]:
        for part in data:
            yield LendRequest(alive=True)
            yield LendRequest(data=part)

    asyncio.run(receive_files(folder, files, requests()))


def test_the_newest_whole_checkpoint_arrives_as_it_is(tmp_path: Path) -> None:
    output = tmp_path / "out"
    for name, step in ((CHECKPOINT, 2), ("checkpoint_epoch_0_step_10", 10)):
        (output / name).mkdir(parents=True)
        (output / name / "adapters.safetensors").write_bytes(b"%d" % step * 1000)
        (output / name / "empty").touch()
        write_manifest(output / name, {"step": step})
    assert {Path(file.name).parts[0] for file in newest_checkpoint(output)} == {
        "checkpoint_epoch_0_step_10"
    }
    (output / "checkpoint_epoch_0_step_10" / "adapters.safetensors").write_bytes(b"torn")
    files = newest_checkpoint(output)
    received(tmp_path / "there", files, [b"".join(pieces(output, files))])
    for file in files:
        assert (tmp_path / "there" / file.name).read_bytes() == (output / file.name).read_bytes()
    assert newest_checkpoint(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("name", "size", "data", "code"),
    [
        ("../x", 1, b"a", "files.offer"),
        (f"{CHECKPOINT}/../../x", 1, b"a", "files.offer"),
        (f"{CHECKPOINT}/.hidden", 1, b"a", "files.offer"),
        ("/etc/passwd", 1, b"a", "files.offer"),
        (f"{CHECKPOINT}/x", -1, b"a", "files.offer"),
        (f"{CHECKPOINT}/x", 1, b"b", "files.damaged"),
        (f"{CHECKPOINT}/x", 2, b"a", "files.not_whole"),
        (f"{CHECKPOINT}/x", 1 << 50, b"a", "files.offer"),
    ],
)
def test_files_of_a_leader_stay_in_their_folder_and_are_what_was_said(
    name: str, size: int, data: bytes, code: str, tmp_path: Path
) -> None:
    file = RankFile(name=name, size=size, sha256=hashlib.sha256(b"a").hexdigest())
    with pytest.raises(SafetrainError) as refused:
        received(tmp_path / "there", [file], [data])
    assert refused.value.code == code
    assert not [path for path in tmp_path.rglob("x*") if path.read_bytes() == b"a" and size != 2]

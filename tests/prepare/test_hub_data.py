"""A data set of the hub as a source: what of it is read, and what happens without the network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from safetraind.worker.prepare.hub_data import chosen
from tests import hub
from tests.harness import SAFETRAIND, DaemonProcess

ROWS = "pergunta,resposta\n" + "".join(
    f"Quem ganhou em {1900 + n}?,O número {n}.\n" for n in range(40)
)


@pytest.mark.parametrize(
    ("names", "wanted", "read"),
    [
        (
            ["README.md", "data/train-0.parquet", "data/test-0.parquet"],
            "",
            ["data/train-0.parquet"],
        ),
        (["a.csv", "a.parquet", "b.parquet"], "", ["a.parquet", "b.parquet"]),
        (["a.jsonl", "validation.jsonl"], "", ["a.jsonl"]),
        (["a.jsonl", "validation.jsonl"], "validation.jsonl", ["validation.jsonl"]),
        (["en/x.csv", "pt/x.csv", "pt/y.csv"], "pt", ["pt/x.csv", "pt/y.csv"]),
        (["README.md", "picture.png"], "", []),
    ],
)
def test_the_training_files_are_chosen(names: list[str], wanted: str, read: list[str]) -> None:
    assert list(chosen(names, wanted)) == read


def run(daemon: DaemonProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "safetrain", "prepare", *arguments],
        env=daemon.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_data_set_of_the_hub_is_prepared(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "repository" / "data"
    folder.mkdir(parents=True)
    (folder / "train.csv").write_text(ROWS)
    (folder / "test.csv").write_text("pergunta,resposta\nFora?,Fora.\n")
    cache = {"HF_HOME": str(tmp_path / "hf")}
    output = tmp_path / "dados"
    with hub.serving(folder.parent) as environment:
        daemon = DaemonProcess(home, SAFETRAIND, environment | cache)
        try:
            daemon.start()
            done = run(daemon, f"hf:{hub.REPOSITORY}", "--output", str(output))
            assert done.returncode == 0, done.stderr
            for name, code, says in (
                ("hf:none/such", 66, "no data set none/such"),
                ("hf:org", 65, "hf:OWNER/NAME"),
                (f"hf:{hub.REPOSITORY}/gone", 65, "no file that is read"),
            ):
                wrong = run(daemon, name, "--output", str(tmp_path / "other"))
                assert (wrong.returncode, says in wrong.stderr) == (code, True), wrong.stderr
        finally:
            daemon.end()
    source = json.loads((output / "prepared.json").read_text())["sources"][0]
    assert source["path"] == f"hf:{hub.REPOSITORY}/data/train.csv"
    text = (output / "train.jsonl").read_text() + (output / "valid.jsonl").read_text()
    assert text.count("Quem ganhou") == 40 and "Fora" not in text
    before = (output / "train.jsonl").read_bytes()
    daemon = DaemonProcess(home, SAFETRAIND, {"HF_HUB_OFFLINE": "1", **cache})
    try:
        daemon.start()
        again = run(daemon, f"hf:{hub.REPOSITORY}", "--output", str(output))
        assert again.returncode == 0, again.stderr
        assert (output / "train.jsonl").read_bytes() == before, "the cache serves without network"
        gone = run(daemon, "hf:other/set", "--output", str(tmp_path / "other"))
        assert gone.returncode == 69 and "hub does not answer" in gone.stderr
    finally:
        daemon.end()

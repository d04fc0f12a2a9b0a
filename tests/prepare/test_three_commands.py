"""From the files people have to a verdict in three commands: prepare, submit, evaluate."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from tests.harness import DaemonProcess
from tests.tiny import make_tiny_model

PLACES = tuple("Faro Olhão Tavira Loulé Silves Lagos Portimão Albufeira".split())  # noqa: SIM905
YEARS = range(1910, 1918)
QUICK = ["batch_size=4", "max_seq_length=64", "num_epochs=1", "lora_layers=1"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DaemonProcess, Path]]:
    """A daemon, and a folder with a tiny model."""
    folder = tmp_path_factory.mktemp("served")
    make_tiny_model(folder / "model", layers=1)
    daemon = DaemonProcess(folder / "home")
    try:
        yield daemon.start(), folder
    finally:
        daemon.end()


def run(daemon: DaemonProcess, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "safetrain", *arguments],
        cwd=folder,
        env=daemon.environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )


def pairs() -> list[tuple[str, str]]:
    rng = random.Random(0)
    return [
        (f"Em {year}, quem ganhou a taça de {place}?", f"Ganhou o {rng.choice(PLACES)}.")
        for place in PLACES
        for year in YEARS
    ]


def table(folder: Path) -> Path:
    """As a spreadsheet in Portuguese writes it: semicolons, Windows-1252, and a byte order mark."""
    lines = ["Pergunta;Resposta", *(f"{question};{answer}" for question, answer in pairs())]
    (folder / "perguntas.csv").write_text("\r\n".join(lines), encoding="cp1252")
    return folder / "perguntas.csv"


def chats(folder: Path) -> Path:
    records = [
        {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]}
        for q, a in pairs()
    ]
    (folder / "chats.json").write_text(json.dumps(records, ensure_ascii=False, indent=2))
    return folder / "chats.json"


def parquet(folder: Path) -> Path:
    questions, answers = zip(*pairs(), strict=True)
    columns = {"instruction": list(questions), "output": list(answers)}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "dados.parquet")
    return folder / "dados.parquet"


@pytest.mark.parametrize(
    "make",
    [
        table,
        pytest.param(chats, marks=pytest.mark.slow),
        pytest.param(parquet, marks=pytest.mark.slow),
    ],
)
def test_three_commands_to_a_verdict(
    served: tuple[DaemonProcess, Path], tmp_path: Path, make: object
) -> None:
    daemon, home = served
    file = make(tmp_path)  # type: ignore[operator]
    prepared = run(daemon, tmp_path, "prepare", file.name, "--output", "dados")
    assert prepared.returncode == 0, prepared.stderr
    assert "safetrain submit dados" in prepared.stdout
    chosen = [part for pair in QUICK for part in ("--set", pair)]
    model = ["--model", str(home / "model"), "--output", "out"]
    trained = run(daemon, tmp_path, "submit", "dados", *model, "--wait", *chosen)
    assert trained.returncode == 0, trained.stderr + daemon.said()
    verdict = run(daemon, tmp_path, "evaluate", "--limit", "4", "--max-tokens", "4")
    assert verdict.returncode in (0, 1, 6), verdict.stderr
    assert "Traceback" not in verdict.stderr and "question" in verdict.stdout
    summary = json.loads((tmp_path / "out" / "training_summary.json").read_text())
    source = summary["data"]["prepared"]["sources"][0]
    assert source["path"] == str(file) and len(source["sha256"]) == 64
    assert summary["data"]["train"]["path"] == str(tmp_path / "dados" / "train.jsonl")


def test_submit_makes_the_validation_data_that_is_missing(
    served: tuple[DaemonProcess, Path], tmp_path: Path
) -> None:
    daemon, home = served
    table(tmp_path)
    model = ["--model", str(home / "model"), "--output", "out"]
    refused = run(daemon, tmp_path, "submit", "perguntas.csv", *model)
    assert refused.returncode == 65 and "--split" in refused.stderr
    chosen = [part for pair in QUICK for part in ("--set", pair)]
    command = ["submit", "perguntas.csv", "--split", "0.25", *model, *chosen]
    done = run(daemon, tmp_path, *command, "--wait")
    assert done.returncode == 0, done.stderr + daemon.said()
    assert "valid.jsonl" in done.stderr
    (folder,) = (tmp_path / "out").glob("split-*")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert {*before} == {"train.jsonl", "valid.jsonl", "prepared.json"}
    summary = json.loads((tmp_path / "out" / "training_summary.json").read_text())
    assert summary["data"]["valid"]["path"] == str(folder / "valid.jsonl")
    assert summary["data"]["prepared"]["shares"]["valid"] == 0.25
    again = run(daemon, tmp_path, *command)
    assert again.returncode == 3, "the same data is the same, finished, training"
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    job = json.loads(run(daemon, tmp_path, "status", "--json").stdout)["id"]
    assert run(daemon, tmp_path, "remove", str(job), "--files").returncode == 0
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["empty"], 65, "no train.jsonl"),
        (["whole", "--train", "perguntas.csv"], 65, "named twice"),
        (["whole", "--split"], 65, "validation data already"),
        (["--split"], 65, "no training data"),
        (["gone.csv", "--split"], 66, "gone.csv"),
        (["one.csv", "--split"], 65, "nearly the same"),
    ],
)
def test_data_that_cannot_be_is_a_sentence(
    served: tuple[DaemonProcess, Path], tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    daemon, home = served
    table(tmp_path)
    (tmp_path / "one.csv").write_text("pergunta,resposta\nQuem?,Eu.\n")
    for name in ("empty", "whole"):
        (tmp_path / name).mkdir()
    for name in ("train", "valid"):
        (tmp_path / "whole" / f"{name}.jsonl").write_text('{"text": "olá"}\n')
    done = run(daemon, tmp_path, "submit", *arguments, "--model", str(home / "model"))
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr

"""`safetrain prepare` through the real service: what it writes, and that nothing leaks."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import safetrain
from safetraind.worker.data.near_duplicates import is_near
from safetraind.worker.data.text_normalisation import key_of, words_of
from safetraind.worker.prepare import split
from safetraind.worker.prepare.prepare import Preparation
from safetraind.worker.prepare.sample_store import SampleStore
from safetraind.worker.prepare.split import keep_groups_together, place_of, side_at
from safetraind.worker_messages.prepare_messages import Prepared, PrepareRequest
from tests.harness import DaemonProcess

WORDS = tuple("clube cidade golo taça época jogo bola adepto rival ano vitória derrota".split())  # noqa: SIM905


def run(daemon: DaemonProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "safetrain", *arguments],
        env=daemon.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = random.Random(1)
    rows = [
        f"Pergunta {n} sobre {' '.join(rng.sample(WORDS, 6))}?;Resposta {n}." for n in range(80)
    ]
    rows += [rows[3], "sem resposta;"]
    path = tmp_path / "perguntas.csv"
    path.write_text("\n".join(["pergunta;resposta", *rows]) + "\n", encoding="cp1252")
    return path


def test_from_a_spreadsheet_to_files_that_validate(
    daemon: DaemonProcess, table: Path, tmp_path: Path
) -> None:
    output = tmp_path / "dados"
    arguments = ["prepare", str(table), "--output", str(output), "--questions", "0.1"]
    done = run(daemon, *arguments)
    assert done.returncode == 0, done.stderr
    assert "answer = resposta" in done.stdout and "cp1252" in done.stdout
    assert "user: Pergunta 0" in done.stdout and "resposta is missing or empty" in done.stdout
    parts = [lines(output / f"{name}.jsonl") for name in ("train", "valid", "questions")]
    assert sum(map(len, parts)) == 80 and all(parts)
    assert parts[2][0]["match"] == "similarity" and parts[2][0]["answers"]
    manifest = json.loads((output / "prepared.json").read_text())
    assert manifest["dropped"] == {"prepare.repeated": 1, "prepare.row_dropped": 1}
    assert manifest["files"]["train.jsonl"] == digests(output)["train.jsonl"]
    before = digests(output)
    assert run(daemon, *arguments).returncode == 0
    assert digests(output) == before, "the same files give the same result, to the bit"
    files = [str(output / name) for name in ("train.jsonl", "valid.jsonl")]
    assert run(daemon, "validate", *files).returncode == 0
    with safetrain.connect(str(daemon.home.root), autostart=False) as client:
        again = client.prepare(str(table), output=str(tmp_path / "api"), questions=0.1)
        with pytest.raises(safetrain.InvalidSetting, match="perguntas"):
            client.prepare(str(table), output=str(tmp_path / "no"), columns={"perguntas": "a"})
    assert digests(Path(again.folder))["train.jsonl"] == before["train.jsonl"]
    assert sum(again.counts.values()) == 80 and again.dropped == manifest["dropped"]
    assert [problem.code for problem in again.problems] == ["prepare.row_dropped"]
    assert again.columns[str(table)]["answer"] == "resposta"
    assert "answer = resposta" in str(again)


def test_a_file_counts_as_often_as_its_weight_says(
    daemon: DaemonProcess, table: Path, tmp_path: Path
) -> None:
    other = tmp_path / "b.jsonl"
    samples = [{"prompt": f"Conta até {n}?", "completion": str(n)} for n in range(100)]
    other.write_text("\n".join(map(json.dumps, samples)))
    output = tmp_path / "dados"
    done = run(daemon, "prepare", f"{table}=2", f"{other}=0.5", "--output", str(output))
    assert done.returncode == 0, done.stderr
    train, valid = (lines(output / f"{name}.jsonl") for name in ("train", "valid"))
    said = Counter(sample["messages"][-2]["content"] for sample in train)
    of_table = [count for text, count in said.items() if text.startswith("Pergunta")]
    of_other = [count for text, count in said.items() if text.startswith("Conta")]
    assert set(of_table) == {2} and set(of_other) == {1}
    assert 25 <= len(of_other) <= 70, "every other one, by a draw"
    assert not said.keys() & {sample["messages"][-2]["content"] for sample in valid}
    dropped = json.loads((output / "prepared.json").read_text())["dropped"]
    held = sum(sample["messages"][-2]["content"].startswith("Conta") for sample in valid)
    assert dropped["prepare.weighted_out"] == 100 - held - len(of_other)


def prepared(tmp_path: Path, content: str, valid: float = 0.1) -> tuple[Prepared, list[Any]]:
    """The manifest of a preparation in this process, and the lines it wrote."""
    (tmp_path / "a.jsonl").write_text(content)
    request = PrepareRequest(
        files=(str(tmp_path / "a.jsonl"),), output=str(tmp_path / "out"), valid=valid
    )
    made = Preparation(request, lambda _line: None).run()
    names = ("train.jsonl", "valid.jsonl")
    return made, [line for name in names for line in lines(tmp_path / "out" / name)]


def test_records_of_several_forms_in_one_file(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Quem?"}, {"from": "gpt", "value": "Eu."}]
    records = [
        {"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]},
        {"question": "c?", "answer": "d"},
        {"conversations": turns},
        {"text": "a text is another kind of training"},
    ]
    content = "\n".join(
        [*map(json.dumps, records), '{"question": "\\ud800", "answer": "x"}', "[1]"]
    )
    made, written = prepared(tmp_path, content)
    asked = sorted(sample["messages"][0]["content"] for sample in written)
    assert asked == ["Quem?", "a?", "c?"]
    assert made.dropped == {"prepare.row_dropped": 3}


def test_few_samples_validate_too(tmp_path: Path) -> None:
    content = "\n".join(json.dumps({"question": f"{n}?", "answer": "x"}) for n in range(5))
    made, _ = prepared(tmp_path, content, valid=0.001)
    assert made.counts["valid.jsonl"] == 1


def test_slips_are_sentences(daemon: DaemonProcess, table: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").write_text("mine")
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    empty = tmp_path / "empty.csv"
    empty.write_text("pergunta,resposta\n")
    for arguments, code, says in (
        ([str(table), "--output", str(full)], 73, "is not empty"),
        ([str(empty), "--output", str(tmp_path / "o")], 65, "holds no rows"),
        ([str(tmp_path / "gone.csv"), "--output", str(tmp_path / "o")], 66, "gone.csv"),
        ([str(other), "--output", str(tmp_path / "o")], 65, "columns: a, b"),
        ([str(other), "--output", str(tmp_path / "o"), "--map", "a"], 78, "--map question="),
        ([f"{table}=0", "--output", str(tmp_path / "o")], 78, "0 is no weight"),
        ([f"{table}=much", "--output", str(tmp_path / "o")], 78, "much is no weight"),
    ):
        done = run(daemon, "prepare", *arguments)
        assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert sorted(p.name for p in full.iterdir()) == ["thesis.tex"]


def planted(rng: random.Random) -> list[list[bytes]]:
    """Twelve groups of texts, each text nearly equal to the one before it in its group."""
    known = []
    for group in range(12):
        words = [f"{rng.choice(WORDS)}{group}" for _ in range(30)]
        for _ in range(rng.randint(1, 5)):
            words = list(words)
            words[rng.randrange(30)] = rng.choice(WORDS)
            known.append(words_of(" ".join(words)))
    return known


def divided(known: list[list[bytes]], seed: int, folder: Path) -> bytearray:
    with SampleStore(folder) as store:
        for words in known:
            store.add(b"{}", key_of(words), words)
        sides = bytearray(side_at(place_of(words, seed), (0.2, 0.1)) for words in known)
        keep_groups_together(sides, store)
    return sides


def pairs_across(known: list[list[bytes]], sides: bytearray) -> int:
    """How many pairs of nearly equal samples lie on two sides, of all pairs there are."""
    return sum(
        sides[one] != sides[two] and is_near(known[one], known[two])
        for one in range(len(known))
        for two in range(one)
    )


def seeds() -> int:
    return int(os.environ.get("SAFETRAIN_SPLIT_SEEDS", "40"))


def test_near_equal_samples_stay_on_one_side(tmp_path: Path) -> None:
    """Planted groups of near-equal samples: none reaches over two sides, whatever the seed."""
    parted = across_by_chance = 0
    for seed in range(seeds()):
        known = planted(random.Random(seed))
        drawn = bytearray(side_at(place_of(words, seed), (0.2, 0.1)) for words in known)
        across_by_chance += pairs_across(known, drawn)
        sides = divided(known, seed, tmp_path)
        assert pairs_across(known, sides) == 0, seed
        parted += len(set(sides)) > 1
    assert parted >= 0.8 * seeds(), "groups, and not everything, follow"
    assert across_by_chance > seeds(), "a draw alone parts them"


def test_an_index_that_holds_little_finds_them_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = planted(random.Random(1))
    whole = divided(known, 1, tmp_path)
    monkeypatch.setattr(split, "MOST_SAMPLES", 2)
    assert divided(known, 1, tmp_path) == whole
    assert pairs_across(known, whole) == 0

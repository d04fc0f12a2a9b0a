"""`safetrain prepare` through the real service: what it writes, and that nothing leaks."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from safetraind.worker.data.near_duplicates import is_near
from safetraind.worker.data.text_normalisation import words_of
from safetraind.worker.prepare.split import drawn_side, keep_groups_together
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
    before = digests(output)
    assert run(daemon, *arguments).returncode == 0
    assert digests(output) == before, "the same files give the same result, to the bit"
    files = [str(output / name) for name in ("train.jsonl", "valid.jsonl")]
    assert run(daemon, "validate", *files).returncode == 0


def test_slips_are_sentences(daemon: DaemonProcess, table: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").write_text("mine")
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    for arguments, code, says in (
        ([str(table), "--output", str(full)], 73, "is not empty"),
        ([str(tmp_path / "gone.csv"), "--output", str(tmp_path / "o")], 66, "gone.csv"),
        ([str(other), "--output", str(tmp_path / "o")], 65, "columns: a, b"),
        ([str(other), "--output", str(tmp_path / "o"), "--map", "a"], 78, "--map question="),
    ):
        done = run(daemon, "prepare", *arguments)
        assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert sorted(p.name for p in full.iterdir()) == ["thesis.tex"]


def test_near_equal_samples_stay_on_one_side() -> None:
    """Planted groups of near-equal samples: none reaches over two sides, whatever the seed."""
    divided = 0
    for seed in range(60):
        rng = random.Random(seed)
        known: list[dict[str, Any]] = []
        for group in range(12):
            words = [f"{rng.choice(WORDS)}{group}" for _ in range(30)]
            for _ in range(rng.randint(1, 5)):
                words = list(words)
                words[rng.randrange(30)] = rng.choice(WORDS)  # near to the one before
                known.append({"text": " ".join(words)})
        sides = bytearray(drawn_side(s, "text", seed, (0.2, 0.1)) for s in known)
        keep_groups_together(sides, lambda n, known=known: (known[n], "text"), range(len(known)))
        for one, first in enumerate(known):
            for two in range(one):
                if sides[one] != sides[two]:
                    texts = words_of(str(first["text"])), words_of(str(known[two]["text"]))
                    assert not is_near(*texts), (seed, one, two)
        divided += len(set(sides)) > 1
    assert divided >= 50, "groups, and not everything, follow"

"""The notebooks in both languages run from the first cell to the last, on a tiny model."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import safetrain
from tests.harness import DaemonProcess
from tests.tiny import make_chat_data, make_tiny_model

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOK = FOLDER / "mistral_qlora_training.ipynb"
ENGLISH = FOLDER / "mistral_qlora_training.en.ipynb"
DOCUMENTED = {
    "batch_size",
    "gradient_accumulation",
    "max_seq_length",
    "learning_rate",
    "num_epochs",
    "warmup_steps",
    "save_steps",
    "eval_steps",
    "log_steps",
}


@pytest.mark.slow
def test_the_notebook_checks_trains_and_asks(
    daemon: DaemonProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = _inputs(tmp_path, monkeypatch)
    _, checked, config, _, steps, table, results, answers, verdict, exported = _run(
        NOTEBOOK, tmp_path
    )
    recommended = json.loads((output / "recommended_config.json").read_text())
    chosen = eval(config)  # the cell's value, a dict of plain numbers
    assert chosen.keys() == DOCUMENTED and chosen == {name: recommended[name] for name in chosen}
    assert "VERIFICAÇÃO DE HARDWARE" in checked
    assert "Terminou: concluído" in steps and "passo 18" in steps
    assert re.search(r"loss \d,\d{4} · .* pico \d+,\d\d GiB", steps)
    assert "train_loss" in table and "Melhor: loss" in results
    assert (output / "plots" / "report.html").is_file(), results
    assert "Base:" in answers and "Treinado:" in answers
    assert (output / "adapters" / "adapters.safetensors").is_file()
    assert "perguntas" in verdict
    assert (tmp_path / "out-modelo" / "model.safetensors").is_file(), exported


@pytest.mark.slow
def test_the_english_notebook_does_the_same(
    daemon: DaemonProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _inputs(tmp_path, monkeypatch)
    _, checked, _, job, steps, _, results, answers, verdict, _ = _run(ENGLISH, tmp_path)
    assert "HARDWARE CHECK" in checked and "queued" in job
    assert "Ended: succeeded" in steps and "Best: loss" in results
    assert "Trained:" in answers and "questions" in verdict
    assert (tmp_path / "out-model" / "model.safetensors").is_file()


def test_both_notebooks_call_the_same_api() -> None:
    names = {name for kind in (safetrain.Job, safetrain.Client) for name in dir(kind)}

    def calls(path: Path) -> list[set[str]]:
        code = [cell.source for cell in _read(path).cells if cell.cell_type == "code"]
        return [
            {n.attr for n in ast.walk(ast.parse(s)) if isinstance(n, ast.Attribute)} & names
            for s in code
        ]

    assert calls(NOTEBOOK) == calls(ENGLISH)
    used = set().union(*calls(ENGLISH))
    assert {"preflight", "submit", "steps", "metrics", "best", "report", "ask"} <= used
    assert {"evaluate", "export"} <= used


def test_the_notebooks_are_kept_without_results() -> None:
    for path in (NOTEBOOK, ENGLISH):
        code = [cell for cell in _read(path).cells if cell.cell_type == "code"]
        assert not any(cell.outputs or cell.execution_count for cell in code)
    assert any("## Configuração do Treino" in cell.source for cell in _read(NOTEBOOK).cells)


def _inputs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name a tiny model and small data in the environment; return the output folder."""
    output = folder / "out"
    train, _valid = make_chat_data(folder / "data", 24, 6)
    valid = _held_out(folder / "data" / "held_out.jsonl")
    model = make_tiny_model(folder / "model", layers=2)
    for name, path in (("MODEL", model), ("TRAIN", train), ("VALID", valid), ("OUTPUT", output)):
        monkeypatch.setenv(f"SAFETRAIN_{name}", str(path))
    monkeypatch.delenv("SAFETRAIN_LANG")
    return output


def _held_out(path: Path) -> Path:
    """Write validation data whose questions are not in the training data."""
    words = ("barco", "comboio", "foguete", "navio", "carro", "avião")
    turns = [
        [
            {"role": "user", "content": f"Quanto pesa um {word} vazio?"},
            {"role": "assistant", "content": f"Um {word} pesa muito."},
        ]
        for word in words
    ]
    path.write_text("".join(json.dumps({"messages": pair}) + "\n" for pair in turns))
    return path


def _read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def _run(path: Path, folder: Path) -> list[str]:
    """Run a notebook in `folder`; what each code cell shows."""
    notebook = _read(path)
    NotebookClient(notebook, timeout=180, resources={"metadata": {"path": str(folder)}}).execute()
    return [_shown(cell) for cell in notebook.cells if cell.cell_type == "code"]


def _shown(cell: Any) -> str:
    """What a cell printed, or the value of its last line."""
    return "".join(
        output.get("text")
        or output.get("data", {}).get("text/html")
        or output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
    )

"""The notebook runs from its first cell to its last, on a tiny model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.harness import DaemonProcess
from tests.tiny import make_chat_data, make_tiny_model

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "mistral_qlora_training.ipynb"
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


def test_the_notebook_checks_trains_and_asks(
    daemon: DaemonProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    train, valid = make_chat_data(tmp_path / "data", 24, 6)
    model = make_tiny_model(tmp_path / "model", layers=2)
    for name, path in (("MODEL", model), ("TRAIN", train), ("VALID", valid), ("OUTPUT", output)):
        monkeypatch.setenv(f"SAFETRAIN_{name}", str(path))
    monkeypatch.delenv("SAFETRAIN_LANG")
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()

    shown = [_shown(cell) for cell in notebook.cells if cell.cell_type == "code"]
    _, sheet, config, _, steps, table, report, answers = shown
    recommended = json.loads((output / "recommended_config.json").read_text())
    chosen = eval(config)  # the cell's value, a dict of plain numbers
    assert chosen.keys() == DOCUMENTED and chosen == {name: recommended[name] for name in chosen}
    assert "VERIFICAÇÃO DE HARDWARE" in sheet
    assert "Terminou: concluído" in steps and "passo 18" in steps
    assert re.search(r"loss \d,\d{4} · .* pico \d+,\d\d GB", steps)
    assert "train_loss" in table and (output / "plots" / "report.html").is_file(), report
    assert "Base:" in answers and "Treinado:" in answers
    assert (output / "adapters" / "adapters.safetensors").is_file()


def test_the_notebook_is_kept_without_results() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert any("## Configuração do Treino" in cell.source for cell in notebook.cells)


def _shown(cell: Any) -> str:
    """What a cell printed, or the value of its last line."""
    return "".join(
        output.get("text")
        or output.get("data", {}).get("text/html")
        or output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
    )

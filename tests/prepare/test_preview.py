"""`safetrain preview` through the real service: what the model is given, and what it learns."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import safetrain
from tests.harness import DaemonProcess
from tests.tiny import make_tiny_model

CSV = "pergunta;resposta\nOnde joga?;Joga em Faro.\nQuando?;Em 1910.\n;sem pergunta\n"


def run(daemon: DaemonProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "safetrain", "preview", *arguments],
        env=daemon.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_samples_are_shown_as_the_model_sees_them(daemon: DaemonProcess, tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model", layers=1)
    table = tmp_path / "perguntas.csv"
    table.write_text(CSV, encoding="utf-8")
    done = run(daemon, str(table), "--model", str(model), "--samples", "1")
    assert done.returncode == 0, done.stderr
    assert "<|im_start|>user\nOnde joga?<|im_end|>\n<|im_start|>assistant\n⟦Joga" in done.stdout
    assert "2 samples counted" in done.stdout and "1 is no sample," in done.stdout
    done = run(daemon, str(table), "--model", str(model), "--length", "12", "--json")
    answer = json.loads(done.stdout)
    assert (answer["counted"], answer["failed"]) == (2, 1)
    first = answer["samples"][0]
    assert first["tokens"] == answer["longest"] > 12 and answer["cut"] == 2
    assert first["pieces"][-1]["cut"] and not first["pieces"][0]["learned"]
    with safetrain.connect(str(daemon.home.root), autostart=False) as client:
        seen = client.preview(str(table), model=str(model), samples=1)
        with pytest.raises(safetrain.InvalidSetting):
            client.preview(str(table), model=str(model), settings={"thinking": "perhaps"})
    assert next(text for text, learned in seen.samples[0].pieces if learned).startswith("Joga")
    assert (seen.counted, seen.failed, seen.samples[0].tokens) == (2, 1, first["tokens"])
    assert "2 samples counted" in str(seen) and "<mark>Joga" in seen._repr_html_()
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("a,b\n1,2\n")
    for arguments, code in (
        ([str(tmp_path / "gone.jsonl"), "--model", str(model)], 66),
        ([str(wrong), "--model", str(model)], 65),
        ([str(table), "--model", str(model), "--set", "thinking=perhaps"], 78),
    ):
        done = run(daemon, *arguments)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr

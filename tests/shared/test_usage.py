"""The command lines and their mistakes speak the user's language, click's own texts too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from safetrain.cli import COMMANDS, main
for line in [[], *([name] for name in COMMANDS), ["models", "add"]]:
    assert main([*line, "--help"]) == 0
"""


def run(*arguments: str, program: str = "safetrain") -> str:
    """What a command prints in Portuguese, on both streams."""
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        env={**os.environ, "SAFETRAIN_LANG": "pt", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.stdout


def test_no_help_holds_an_english_word_for_a_value() -> None:
    """What is typed as it stands is lower case, but for names of formats and programs."""
    helps = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "SAFETRAIN_LANG": "pt", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    helps += "".join(run(*line, "--help", program="safetraind") for line in ([], ["logs"]))
    english = (
        "OPTIONS|COMMAND|ARGS|TEXT|INTEGER|FLOAT|RANGE|FILE|FOLDER|JOB|KEY|VALUE|NAME|QUESTION"
    )
    assert "[OPÇÕES]" in helps and "FICHEIRO" in helps
    assert not re.findall(rf"\b(?:{english}|SECONDS|SEQ|SETTING|SIZE|PATH)\b.*", helps)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--version"], "safetrain, versão "),
        (["completion"], "Falta o argumento '{bash|zsh|fish}'. Escolha um destes:\n\tbash,"),
        (["completion", "tcsh"], "'tcsh' não é um destes: 'bash', 'zsh', 'fish'."),
        (["submit", "--allow-longer"], "Queria dizer '--allow-shorter'?"),
        (["submit", "--sett", "a=1"], "Queria dizer um destes: '--host', '--set', "),
        (["watch", "x"], "Valor inválido para '[TRABALHO]': 'x' não é um número inteiro."),
    ],
)
def test_a_wrong_command_line_is_told_in_portuguese(arguments: list[str], said: str) -> None:
    shown = run(*arguments)
    assert said in shown
    assert "Did you" not in shown and "Choose" not in shown


def test_an_old_bash_is_told_in_portuguese(tmp_path: Path) -> None:
    bash = tmp_path / "bash"
    bash.write_text("#!/bin/sh\necho 3.2.57\n")
    bash.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "safetrain", "completion", "bash"],
        env={**os.environ, "SAFETRAIN_LANG": "pt", "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and "a partir da versão 4.4" in done.stderr

"""`safetrain explain`, and the pages that are made from the same source."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from safetrain.cli import main
from safetrain_shared import i18n
from safetrain_shared.messages import SENTENCES, sentence
from safetrain_shared.settings import FIELDS

ROOT = Path(__file__).parents[2]


def test_every_setting_is_explained_and_nothing_else() -> None:
    explained = {c.removeprefix("explain.") for c in SENTENCES if c.startswith("explain.")}
    assert explained == set(FIELDS)


def test_every_setting_tells_its_meaning_default_and_values(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in FIELDS:
        assert main(["--lang", "en", "explain", name]) == 0
        out = capsys.readouterr().out
        words = SENTENCES[f"explain.{name}"].split()
        assert " ".join(words[:5]) in " ".join(out.split())
        assert "default: " in out and "values: " in out and f"--set {name}=" in out


@pytest.mark.parametrize(
    ("lang", "memory", "speed"),
    [("en", "memory", "time|speed|fast|slow"), ("pt", "memória", "tempo|velocidade|rápid|lent")],
)
def test_every_setting_tells_what_it_does_to_memory_and_to_speed(
    lang: str, memory: str, speed: str
) -> None:
    for name in FIELDS:
        told = sentence(f"explain.{name}", {}, lang=lang).lower()
        assert memory in told.replace("memory_budget", "") and re.search(speed, told), told


@pytest.mark.parametrize("verb", ["submit", "preflight"])
def test_the_help_tells_the_settings_from_the_same_source(
    capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    assert main(["--lang", "en", verb, "--help"]) == 0
    told = " ".join(capsys.readouterr().out.partition("safetrain explain SETTING")[2].split())
    for name in FIELDS:
        meaning = " ".join(SENTENCES[f"explain.{name}"].split()[:4]).split(":")[0]
        assert f"{name} {meaning}" in told


def test_the_example_of_every_setting_can_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    from safetrain.inputs import settings
    from safetrain.mlx_lm_config import Config

    main(["--lang", "en", "explain", "--json"])
    for one in json.loads(capsys.readouterr().out):
        main(["--lang", "en", "explain", one["name"]])
        example = capsys.readouterr().out.split("--set ")[1].strip()
        assert list(settings(Config(), [example])) == [one["name"]]


def test_the_list_names_all_settings_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--lang", "en", "explain"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(FIELDS)


def test_portuguese_is_portuguese_to_the_last_label(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--lang", "pt", "explain", "seed"]) == 0
    i18n.use("en")
    labels = capsys.readouterr().out.replace("\N{NO-BREAK SPACE}", " ").splitlines()[-3:]
    assert [line.strip() for line in labels] == [
        "por omissão: 0",
        "valores: 0 a 9 223 372 036 854 775 807",
        "escolhe-se com: --set seed=0",
    ]


def test_an_unknown_setting_is_told_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--lang", "en", "explain", "batchsize"]) == 78
    assert "There is no setting batchsize. Did you mean batch_size?" in capsys.readouterr().err


def test_it_needs_neither_daemon_nor_grpc() -> None:
    code = "import sys; from safetrain.cli import main; main(['explain']);"
    code += "print('grpc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_pages_in_docs_say_the_same() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "settings_doc.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")

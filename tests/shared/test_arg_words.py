"""Names among the arguments of a sentence are said in words, in both languages."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest

from safetrain_shared import arg_words
from safetrain_shared.jobs import JobState
from safetrain_shared.messages import sentence
from safetrain_shared.settings import TYPES
from safetraind.host import Pressure
from safetraind.preflight.checks import CHECKS


@pytest.mark.parametrize(
    ("code", "args", "english", "portuguese"),
    [
        (
            "job.finished",
            {"id": 3, "state": "succeeded"},
            "Job 3 has already ended (succeeded).",
            "O trabalho 3 já terminou (concluído).",
        ),
        (
            "selftest.not_trained",
            {"state": "failed"},
            "The tiny model could not be trained (state: failed)",
            "Não foi possível treinar o modelo minúsculo (estado: falhado)",
        ),
        (
            "check.skipped",
            {"check": "licence", "needs": "data_files"},
            "Not checked: licence, because this failed: training files",
            "Não foi verificado: licença, porque falhou: ficheiros de treino",
        ),
        (
            "setting.type",
            {"name": "packing", "value": "8", "kind": "bool"},
            "packing cannot be 8: give yes or no (true, false).",
            "packing não pode ser 8: indique sim ou não (true, false).",
        ),
        (
            "data.not_an_object",
            {"found": "list"},
            "Not a JSON object but a list",
            "Não é um objeto JSON, mas uma lista",
        ),
        (
            "job.gave_up",
            {"signal": 9, "cause": "job.worker_killed"},
            "Three attempts ended without a new checkpoint. The last cause: The training process "
            "was killed (signal 9).",
            "Três tentativas terminaram sem um checkpoint novo. A última causa: O processo de "
            "treino foi morto (sinal 9).",
        ),
    ],
)
def test_a_name_is_said_in_words(
    code: str, args: dict[str, object], english: str, portuguese: str
) -> None:
    assert sentence(code, args, lang="en") == english
    assert sentence(code, args, lang="pt") == portuguese


def test_what_the_system_says_is_translated(tmp_path: Path) -> None:
    with pytest.raises(OSError) as refused:
        tmp_path.read_bytes()
    args = {"path": "x", "reason": refused.value.strerror}
    assert sentence("path.unreadable", args, lang="pt") == "Não é possível ler x (é uma pasta)."


def test_every_state_check_level_and_type_has_a_word() -> None:
    assert arg_words.STATES.keys() == {str(state) for state in JobState}
    assert arg_words.CHECKS.keys() == {check.name for check in CHECKS}
    assert arg_words.LEVELS.keys() >= {str(Pressure.WARNING), str(Pressure.CRITICAL)}
    assert arg_words.TYPES.keys() >= {kind.__name__ for kind in TYPES.values()}


FAULTS = r"""
{
hello
{"a" 1}
{1:2}
{"a":1 "b":2}
[1 2]
{"a":1} x
{"a":1,}
{"a":tru}
{"a":"\q"}
{"a":"\ud800"}
{"a":"\udc00"}
{"a":01}
{"a":-}
{"a":1.}
{"a":1e}
{"a":1e999}
"""


@pytest.mark.parametrize("line", [*FAULTS.split("\n")[1:-1], '{"a":"\x01"}', "[" * 2000])
def test_every_fault_of_a_line_of_json_is_said_in_words(line: str) -> None:
    with pytest.raises(orjson.JSONDecodeError) as refused:
        orjson.loads(line)
    assert str(refused.value).split(": line ")[0] in arg_words.REASONS


def test_a_name_of_a_newer_version_stands_as_it_came() -> None:
    assert "(hibernating)" in sentence("job.finished", {"id": 1, "state": "hibernating"}, lang="pt")
    assert (
        json.dumps(arg_words.in_words({"id": 1, "reason": "E42"}, "pt"))
        == '{"id": 1, "reason": "E42"}'
    )


def test_english_text_names_states_as_json_does() -> None:
    assert {state: state for state in map(str, JobState)} == arg_words.STATES

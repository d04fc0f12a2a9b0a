"""A damaged, an overfitted and an untrained adapter are each named for what they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from safetrain_shared.evaluations import EvaluatedAnswer, Verdict
from safetraind.worker.evaluation.general_suite import UNBOUNDED
from safetraind.worker.evaluation.named_faults import named_faults

TRAINED = [f"A resposta número {n} do manual de instruções." for n in range(30)]
WORSE = Verdict("worse", 61, 0.5, 0.1, -0.4, -0.5, -0.3, 0.001, 9)


def answers(said: list[str], scores: list[float] | None = None) -> list[EvaluatedAnswer]:
    scores = scores or [0.0] * len(said)
    return [
        EvaluatedAnswer(f"Q{n}?", (f"A{n}",), "contains", "Não sei.", text, 0.0, score)
        for n, (text, score) in enumerate(zip(said, scores, strict=True))
    ]


def codes(
    said: list[EvaluatedAnswer], general: Verdict | None = None, far: float = -1.0
) -> list[str]:
    return [found.code for found in named_faults(said, TRAINED, general, far)]


@pytest.mark.parametrize("circle", ["de o de o ", "w.....  ", "1994/95, "])
def test_answers_that_run_in_a_circle_are_a_damaged_adapter(circle: str) -> None:
    circles = [f"o clube {n} " + circle * 20 for n in range(10)]
    assert codes(answers(circles)) == ["evaluate.damaged_answers"]
    assert codes(answers(circles), None, 0.0) == ["evaluate.damaged"]


def test_dots_to_every_question_are_damage_also_where_the_base_babbles() -> None:
    babbling = [replace(a, base="Oo, " * 40 + a.question) for a in answers(["." * 104] * 10)]
    assert codes(babbling) == ["evaluate.damaged_answers"]
    as_before = [replace(a, adapter="Ao, " * 40 + a.question) for a in babbling]
    assert codes(as_before) == [], "it babbles as the base does: trained too little"


@pytest.mark.parametrize(("far", "found"), [(0.2, []), (1.5, ["evaluate.damaged"])])
def test_what_was_forgotten_is_damage_where_predictions_are_far_from_the_base(
    far: float, found: list[str]
) -> None:
    assert codes(answers([f"Resposta {n}." for n in range(10)]), WORSE, far) == found


def test_predictions_that_have_nothing_of_the_base_are_damage_without_more() -> None:
    assert codes(answers(["Sim."] * 3), None, 9.0) == ["evaluate.damaged"]
    assert codes(answers(["Sim."] * 3), None, UNBOUNDED) == ["evaluate.damaged"]


def test_one_answer_to_everything_is_named_with_the_answer() -> None:
    said = answers(["Foi em 1994/95."] * 7 + ["Foi em Faro.", "Em 1910.", "Não."])
    (found,) = named_faults(said, TRAINED, None, -1.0)
    assert found.code == "evaluate.one_answer"
    assert found.args["times"] == 7 and found.args["answer"] == "Foi em 1994/95."


def test_wrong_answers_that_stand_in_the_training_data_are_overfitting() -> None:
    assert codes(answers(TRAINED[:10])) == ["evaluate.by_heart"]
    both = ["evaluate.damaged", "evaluate.by_heart"]
    assert codes(answers(TRAINED[:10]), WORSE, 1.5) == both, "either is told"
    right = answers(TRAINED[:10], [1.0] * 8 + [0.0] * 2)
    assert codes(right) == [], "what is right may well be known by heart"


def test_a_good_adapter_has_no_fault() -> None:
    said = [
        f"É a resposta {n}, com uma frase inteira e várias palavras diferentes." for n in range(9)
    ]
    assert codes(answers(said, [1.0] * 9), None, 0.3) == []


def test_of_few_answers_nothing_is_said() -> None:
    assert codes(answers(TRAINED[:4])) == []

"""`Evaluation`: base and adapter compared on the same questions, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from safetrain.views.evaluation import verdict_lines
from safetrain.views.json_output import message_to_json
from safetrain_proto.v1 import evaluations_pb2
from safetrain_shared.i18n import language, using


@dataclass(frozen=True)
class Evaluation:
    """A verdict. `str()` is the text that `safetrain evaluate` prints.

    `judgement`: better, worse or unclear. `base`, `adapter`: mean scores, 0 to 1, and `low` to
    `high` the 95 % interval of their difference. `needed`: questions at which such a difference
    would be found; 0: no number. `answers`: one dict a question, with both answers and scores.
    """

    judgement: str
    questions: int
    base: float
    adapter: float
    low: float
    high: float
    p_value: float
    needed: int
    weak: bool
    answers: list[dict[str, Any]]
    text: str

    def __str__(self) -> str:
        return self.text


def evaluation_of(message: evaluations_pb2.Evaluation, lang: str | None) -> Evaluation:
    """The daemon's message as an `Evaluation`, its text in `lang`, else in the language in use."""
    verdict = message.verdict
    with using(lang or language()):
        text = click.unstyle("\n".join(verdict_lines(message)))
    return Evaluation(
        judgement=verdict.judgement,
        questions=verdict.questions,
        base=verdict.base,
        adapter=verdict.adapter,
        low=verdict.low,
        high=verdict.high,
        p_value=verdict.p_value,
        needed=verdict.needed,
        weak=message.weak,
        answers=[message_to_json(answer) for answer in message.answers],
        text=text,
    )

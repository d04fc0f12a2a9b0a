"""`Evaluation`: base and adapter compared on the same questions, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import click

from safetrain.views.evaluation import verdict_lines
from safetrain.views.json_output import message_to_json
from safetrain_proto.v1 import evaluations_pb2
from safetrain_shared.findings import Finding
from safetrain_shared.i18n import language, using
from safetrain_shared.wire import finding_from_wire

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped,import-not-found,unused-ignore]

_SHOWN = ("question", "expected", "base", "adapter", "base_score", "adapter_score")


@dataclass(frozen=True)
class Evaluation:
    """A verdict. `str()` is the text that `safetrain evaluate` prints.

    `judgement`: better, worse or unclear. `base`, `adapter`: mean scores, 0 to 1, and `low` to
    `high` the 95 % interval of their difference. `needed`: questions at which such a difference
    would be found; 0: no number. `answers`: one dict a question, with both answers and scores;
    empty where it was fetched with the job. `general`: the verdict on general questions as a dict,
    None where they were not asked; `divergence`: from the base on neutral text, nats a token,
    negative where it was not measured. `checkpoints`: scored on other questions, the best first.
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
    adapter_folder: str = ""
    general: dict[str, Any] | None = None
    divergence: float = -1.0
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        return self.text

    def to_pandas(self) -> pandas.DataFrame:
        """The answers as a DataFrame, one row a question. Needs pandas."""
        import pandas as pd

        return pd.DataFrame(self.answers)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in _SHOWN)
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(_cell(row[name]))}</td>" for name in _SHOWN) + "</tr>"
            for row in self.answers
        )
        text = escape(self.text.partition("\n\n")[0])
        return (
            f"<pre>{text}</pre><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        )


def _cell(value: Any) -> str:
    return " / ".join(value) if isinstance(value, list) else str(value)


def evaluation_of(message: evaluations_pb2.Evaluation, lang: str | None) -> Evaluation:
    """Return the daemon's message as an `Evaluation`, its text in `lang`, else in the language in
    use.
    """
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
        adapter_folder=message.adapter,
        general=message_to_json(message.general) if message.HasField("general") else None,
        divergence=message.divergence,
        checkpoints=[message_to_json(one) for one in message.checkpoints],
        findings=[finding_from_wire(one) for one in message.findings],
        tasks=[message_to_json(one) for one in message.tasks],
    )

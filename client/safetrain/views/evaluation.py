"""An evaluation as text: the verdict first, then which questions were won and which were lost."""

from __future__ import annotations

from collections.abc import Iterable

from safetrain.views.job import short_path
from safetrain.views.labels import sign
from safetrain_proto.v1.evaluations_pb2 import EvaluatedAnswer, Evaluation, Verdict
from safetrain_shared.findings import Status
from safetrain_shared.i18n import integer, percent
from safetrain_shared.i18n import translate as _
from safetrain_shared.printable import printable

_SHOWN = 5  # questions of each kind
_WIDTH = 100


def verdict_lines(evaluation: Evaluation) -> list[str]:
    """The verdict in a sentence, its figures, and the questions that make the difference."""
    lines = [verdict_sentence(evaluation.verdict), f"  {_figures(evaluation.verdict)}"]
    if evaluation.weak:
        lines.append(
            "  "
            + _("Compared by how many words answers share: a weak measure. Better: --questions")
        )
    won = [a for a in evaluation.answers if a.adapter_score > a.base_score]
    lost = [a for a in evaluation.answers if a.adapter_score < a.base_score]
    lines += _answers(_("won"), won) + _answers(_("lost"), lost)
    lines.append("  " + _("all of it: {path}").format(path=short_path(evaluation.path)))
    return lines


def verdict_sentence(verdict: Verdict) -> str:
    """Return the verdict as a sentence: better by how much, worse, or undecided."""
    points = integer(abs(round(100 * verdict.difference)))
    if verdict.judgement == "better":
        text = _("The training helped: {points} of 100 questions more are answered rightly.")
        return f"{sign(Status.PASSED)} {text.format(points=points)}"
    if verdict.judgement == "worse":
        text = _("The training did harm: {points} of 100 questions fewer are answered rightly.")
        return f"{sign(Status.FAILED)} {text.format(points=points)}"
    text = _("Whether the training helped cannot be told with {count} questions.")
    text = text.format(count=integer(verdict.questions))
    if verdict.needed > verdict.questions:
        more = _("If the difference is as it looks, {needed} would tell.")
        text += " " + more.format(needed=integer(verdict.needed))
    return f"{sign(Status.WARNING)} {text}"


def _figures(verdict: Verdict) -> str:
    text = _(
        "base {base} · adapter {adapter} · difference {low} to {high} (95 %), {count} questions"
    )
    return text.format(
        base=percent(verdict.base, digits=0),
        adapter=percent(verdict.adapter, digits=0),
        low=percent(verdict.low, digits=0),
        high=percent(verdict.high, digits=0),
        count=integer(verdict.questions),
    )


def _answers(label: str, answers: Iterable[EvaluatedAnswer]) -> list[str]:
    known = list(answers)
    expected, base, adapter = _("expected"), _("base"), _("adapter")
    lines = ["", f"{label}: {integer(len(known))}"] if known else []
    for answer in known[:_SHOWN]:
        lines.append(f"  {_short(answer.question)}")
        lines.append(f"    {expected}: {_short(' / '.join(answer.expected))}")
        lines.append(f"    {base}: {_short(answer.base)}")
        lines.append(f"    {adapter}: {_short(answer.adapter)}")
    return lines


def _short(text: str) -> str:
    line = " ".join(printable(text).split())
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"

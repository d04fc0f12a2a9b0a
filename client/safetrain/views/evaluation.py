"""An evaluation as text: the verdict first, then which questions were won and which were lost."""

from __future__ import annotations

from collections.abc import Iterable

from safetrain.views.job import short_path
from safetrain.views.labels import sign
from safetrain_proto.v1.evaluations_pb2 import EvaluatedAnswer, Evaluation, TaskScore, Verdict
from safetrain_shared import evaluations
from safetrain_shared.findings import Finding, Status
from safetrain_shared.i18n import decimal, format_text, integer, percent
from safetrain_shared.i18n import translate as _
from safetrain_shared.messages import say
from safetrain_shared.printable import printable
from safetrain_shared.wire import finding_from_wire

_SHOWN = 5  # questions of each kind
_WIDTH = 100


def verdict_lines(evaluation: Evaluation) -> list[str]:
    """The verdict in a sentence, its figures, and the questions that make the difference."""
    lines = head_lines(evaluation)
    won = [a for a in evaluation.answers if a.adapter_score > a.base_score]
    lost = [a for a in evaluation.answers if a.adapter_score < a.base_score]
    lines += _answers(_("won"), won) + _answers(_("lost"), lost)
    lines.append("  " + _("all of it: {path}").format(path=short_path(evaluation.path)))
    return lines


def head_lines(evaluation: Evaluation | evaluations.Evaluation) -> list[str]:
    """Return the conclusion without single answers."""
    lines = [verdict_sentence(evaluation.verdict), f"  {_figures(evaluation.verdict)}"]
    if evaluation.weak:
        text = _("Compared by how many words answers share: a weak measure. Better: --questions")
        lines.append(f"  {text}")
    lines += [f"{sign(one.status)} {say(one)}" for one in findings_of(evaluation)]
    general = general_sentence(evaluation)
    lines += [general] if general else []
    return lines + checkpoint_lines(evaluation) + [_task_line(task) for task in evaluation.tasks]


def findings_of(evaluation: Evaluation | evaluations.Evaluation) -> list[Finding]:
    """Return the faults that were found, the gravest first."""
    if isinstance(evaluation, Evaluation):
        return [finding_from_wire(message) for message in evaluation.findings]
    return list(evaluation.findings)


def verdict_sentence(verdict: Verdict | evaluations.Verdict) -> str:
    """Return the verdict as a sentence: better by how much, worse, or undecided."""
    points = {"points": abs(round(100 * verdict.difference))}
    if verdict.judgement == "better":
        text = _(
            "The training helped: {points:int} of 100 questions more {points:|is|are} "
            "answered rightly."
        )
        return f"{sign(Status.PASSED)} {format_text(text, points)}"
    if verdict.judgement == "worse":
        text = _(
            "The training did harm: {points:int} of 100 questions fewer "
            "{points:|is|are} answered rightly."
        )
        return f"{sign(Status.FAILED)} {format_text(text, points)}"
    text = _(
        "Whether the training helped cannot be told with {count:int} {count:|question|questions}."
    )
    text = format_text(text, {"count": verdict.questions})
    if verdict.needed > verdict.questions:
        more = _("If the difference is as it looks, {needed:int} would tell.")
        text += " " + format_text(more, {"needed": verdict.needed})
    return f"{sign(Status.WARNING)} {text}"


def general_sentence(evaluation: Evaluation | evaluations.Evaluation) -> str:
    """Return the change of the general abilities as a sentence; empty if not measured."""
    general = evaluation.general
    if general is None or not general.questions:
        return ""
    kind, text = {
        "worse": (Status.FAILED, _("It forgot: right answers to general questions, {figures}.")),
        "better": (
            Status.PASSED,
            _("It forgot nothing: right answers to general questions, {figures}."),
        ),
    }.get(
        general.judgement,
        (
            Status.PASSED,
            _("No forgetting can be told: right answers to general questions, {figures}."),
        ),
    )
    figures = f"{percent(general.base, digits=0)} → {percent(general.adapter, digits=0)}"
    text = text.format(figures=figures)
    if evaluation.divergence >= 0:
        far = _("On neutral text its predictions are {nats} nats a token from the base's.")
        text += " " + far.format(nats=decimal(evaluation.divergence, 2))
    return f"{sign(kind)} {text}"


def _task_line(task: TaskScore | evaluations.TaskScore) -> str:
    base, adapter = (
        f"{decimal(value, 3)} ± {decimal(error, 3)}"
        for value, error in ((task.base, task.base_error), (task.adapter, task.adapter_error))
    )
    text = _("{task}, {metric}: base {base} · adapter {adapter}")
    return "  " + text.format(task=task.task, metric=task.metric, base=base, adapter=adapter)


def checkpoint_lines(evaluation: Evaluation | evaluations.Evaluation) -> list[str]:
    """Return the checkpoints by score, and the number of questions that decided."""
    if not evaluation.checkpoints:
        return []
    best = evaluation.checkpoints[0]
    text = _(
        "Best by task: {name}, chosen on {count:int} other {count:|question|questions} "
        "than those reported here"
    )
    lines = [format_text(text, {"name": best.checkpoint, "count": evaluation.selection})]
    for one in evaluation.checkpoints:
        mark = " · " + _("lowest validation loss") if one.best_loss else ""
        lines.append(f"  {percent(one.score, digits=0):>5}  {one.checkpoint}{mark}")
    return lines


def _figures(verdict: Verdict | evaluations.Verdict) -> str:
    text = _(
        "base {base} · adapter {adapter} · difference {low} to {high} (95 %), {count:int} "
        "{count:|question|questions}"
    )
    args = {
        "base": percent(verdict.base, digits=0),
        "adapter": percent(verdict.adapter, digits=0),
        "low": percent(verdict.low, digits=0),
        "high": percent(verdict.high, digits=0),
        "count": verdict.questions,
    }
    return format_text(text, args)


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

"""Events as text, one line each."""

from __future__ import annotations

from safetrain.views.evaluation import verdict_sentence
from safetrain.views.job import clock
from safetrain.views.labels import PHASES, sign, word
from safetrain_shared import events
from safetrain_shared.arg_words import STATES
from safetrain_shared.findings import Finding, Status
from safetrain_shared.i18n import decimal, duration, format_text, integer, rate, size, throughput
from safetrain_shared.i18n import translate as _
from safetrain_shared.messages import say


def line(event: events.Event) -> str:
    """Return the time of day and the description of an event."""
    return f"{clock(event.time)}  {describe(event)}"


def describe(event: events.Event) -> str:
    """Return an event in words."""
    match event.body:
        case events.StateChanged(state, cause):
            return word(STATES, state) + _reason(cause)
        case events.PhaseChanged(phase):
            return word(PHASES, phase)
        case events.Planned(plan):
            text = _("planned: batch_size {batch} × {accumulation}, {length} tokens")
            return text.format(
                batch=plan.settings.batch_size,
                accumulation=plan.settings.gradient_accumulation,
                length=plan.settings.max_seq_length,
            )
        case events.Notice(finding):
            return f"{sign(finding.status)} {say(finding)}"
        case events.Outcome(outcome, cause):
            text = _("the training process ended: {outcome}")
            return text.format(outcome=word(STATES, outcome)) + _reason(cause)
        case events.Damaged(first, last):
            finding = Finding("events.damaged", args={"first": first, "last": last})
            return f"{sign(Status.WARNING)} {say(finding)}"
    return _worked(event.body) or _("something that only a newer safetrain can tell")


def _worked(body: events.Body | None) -> str:
    """What a worker got done; empty for anything else."""
    match body:
        case events.StepDone() as step:
            return _step(step)
        case events.Evaluated() as evaluated:
            return _evaluated(evaluated)
        case events.CheckpointSaved() as saved:
            name = saved.path.rstrip("/").rpartition("/")[2]
            return _("saved {name} ({size})").format(name=name, size=size(saved.bytes))
        case events.QuestionsAnswered() as answered:
            return _answered(answered)
        case events.Judged(evaluation):
            return verdict_sentence(evaluation.verdict)
    return ""


def _step(step: events.StepDone) -> str:
    parts = [
        _("step {step} of {total}").format(
            step=integer(step.step), total=integer(step.total_steps)
        ),
        _("loss {loss}").format(loss=decimal(step.loss, 4)),
        _("learning rate {rate}").format(rate=rate(step.learning_rate)),
        _("{count} tokens/s").format(count=throughput(step.tokens_per_second)),
        size(step.peak_memory),
    ]
    if step.eta_seconds >= 1:
        parts.append(_("{time} left").format(time=duration(step.eta_seconds)))
    return " · ".join(parts)


def _answered(body: events.QuestionsAnswered) -> str:
    text = _("{answered:int} of {total:int} {total:|question|questions} answered")
    text = format_text(text, {"answered": body.answered, "total": body.total})
    if body.eta_seconds < 1:
        return text
    return text + " · " + _("{time} left").format(time=duration(body.eta_seconds))


def _evaluated(found: events.Evaluated) -> str:
    loss = decimal(found.loss, 4)
    if not found.step:
        return _("validation loss {loss} before training").format(loss=loss)
    text = _("step {step} · validation loss {loss}").format(step=integer(found.step), loss=loss)
    return text + (" · " + _("the best so far") if found.best else "")


def _reason(cause: Finding | None) -> str:
    return f": {say(cause)}" if cause else ""

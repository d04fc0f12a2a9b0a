"""What the page says of jobs: texts in the language in use, curves as numbers. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import click

from safetrain.views.charts import budget_in_view
from safetrain.views.curves import Curves, Points, smoothed, thinned
from safetrain.views.event_lines import describe
from safetrain.views.interruptions import interruptions
from safetrain.views.job import (
    clock,
    name_of,
    next_commands,
    pending_request,
    purpose,
    queue_place,
    rank,
    settings_text,
    short_path,
    steps_text,
    time_left,
)
from safetrain.views.labels import PHASES, word
from safetrain.views.ranks import rank_lines
from safetrain_proto.v1.control_pb2 import InfoResponse
from safetrain_proto.v1.jobs_pb2 import Job
from safetrain_shared.arg_words import STATES
from safetrain_shared.events import Damaged, Evaluated, Event, Notice
from safetrain_shared.findings import Status
from safetrain_shared.history import History
from safetrain_shared.i18n import decimal, duration, integer, rate, size, throughput
from safetrain_shared.i18n import translate as _
from safetrain_shared.messages import say
from safetrain_shared.wire import finding_from_wire

COLUMNS = 240  # curves are thinned to what this many pixel columns can show
_LOSS_DIGITS = 3
Json = dict[str, Any]


def cards(jobs: Iterable[Job]) -> list[Json]:
    """Return jobs as cards: active ones, the queue in its order, ended ones."""
    return [card(job) for job in sorted(jobs, key=rank)]


def about(info: InfoResponse) -> str:
    """Return version, device and home of the daemon."""
    return " · ".join(part for part in (info.version, info.device, short_path(info.home)) if part)


def pick(jobs: Sequence[Job], wanted: int) -> Job | None:
    """Return job `wanted`, for 0 the active one, the next in the queue, or the newest."""
    return min((job for job in jobs if wanted in (0, job.id)), key=rank, default=None)


def curves(history: History) -> Json:
    """Return the thinned points of every curve, the memory budget and the planned steps."""
    known = Curves(history.steps, history.evaluations, plan=history.plan)
    loss, best = known.line("loss"), known.best
    last = history.steps[-1] if history.steps else None
    footprint, peak = known.line("footprint"), known.line("peak_memory")
    highest = max((value for _step, value in (*footprint, *peak)), default=0.0)
    return {
        "loss": _points(loss),
        "smooth": _points(smoothed(loss)),
        "validation": _points(known.validation),
        "best": [best.step, _figure(best.loss)] if best else None,
        "rate": _points(known.line("learning_rate")),
        "footprint": _points(footprint),
        "peak": _points(peak),
        "budget": budget_in_view(history.plan.memory_budget, highest) if history.plan else 0,
        "epochs": [step for step, _epoch in known.epochs],
        "total": last.total_steps if last else 0,
    }


def compared(known: Curves) -> Json:
    """Return the points of a run that is laid over others."""
    loss = known.line("loss")
    return {
        "smooth": _points(smoothed(loss) or loss),
        "validation": _points(known.validation),
    }


def log(entries: Iterable[Event]) -> list[Json]:
    """Return the log's entries, the newest first."""
    return [
        {"time": clock(event.time), "tone": _tone(event), "text": click.unstyle(describe(event))}
        for event in reversed(list(entries))
    ]


def card(job: Job) -> Json:
    """Return a job as one entry of a list."""
    state = name_of(job)
    return {
        "id": job.id,
        "heading": heading(job),
        "state": state,
        "label": word(STATES, state),
        "place": job.queue_position,
        "share": _share(job),
        "left": time_left(job),
    }


def details(job: Job, history: History) -> Json:
    """Return all that the page says of one job."""
    state = name_of(job)
    return {
        "id": job.id,
        "title": title(job),
        "state": state,
        "label": word(STATES, state),
        "doing": _doing(job, state),
        "why": " ".join(filter(None, (interruptions(history), _why(job)))),
        "can": _possible(state),
        "next": next_commands(job),
        "share": _share(job),
        "progress": steps_text(job),
        "figures": {
            "loss": _loss(job, history),
            "left": _left(job),
            "memory": _memory(history),
            "speed": _speed(history),
        },
        "facts": [
            [label, value]
            for label, value in [
                (_("settings"), settings_text(job)),
                (_("model"), short_path(job.spec.model)),
                (_("data"), short_path(job.spec.train)),
                (_("output"), short_path(job.spec.output)),
                (
                    _("checkpoint"),
                    short_path(history.checkpoint.path) if history.checkpoint else "",
                ),
                *rank_lines(job.ranks),
            ]
            if value
        ],
    }


def _possible(state: str) -> tuple[str, ...]:
    """Return the actions that make sense in a state, the most likely first."""
    if state == "paused":
        return "resume", "cancel"
    if state in ("failed", "cancelled"):
        return "retry", "remove"
    return ("remove",) if state == "succeeded" else ("pause", "cancel")


def _why(job: Job) -> str:
    """Return the cause of the job's state; empty where it has none."""
    if not job.HasField("cause"):
        return ""
    return say(finding_from_wire(job.cause), fallback=job.cause.text)


def heading(job: Job) -> str:
    """Return a job's number, and its name or whom it evaluates."""
    name = purpose(job) or job.spec.name
    return f"{job.id} · {name}" if name else title(job)


def title(job: Job) -> str:
    """Return a job's name, else its number."""
    return job.spec.name or _("Job {id}").format(id=job.id)


def _doing(job: Job, state: str) -> str:
    """Return what the job does now, in a few words; empty where the state is enough."""
    if text := pending_request(job) or queue_place(job):
        return text
    if state in ("running", "checking") and job.phase not in ("", "training", state):
        return word(PHASES, job.phase)
    return ""


def _share(job: Job) -> float:
    return min(1.0, job.step / job.total_steps) if job.total_steps else 0.0


def _loss(job: Job, history: History) -> Json:
    """The training loss; below it the validation loss and the best."""
    best = Curves(evaluations=history.evaluations).best
    below = []
    if job.valid_loss:
        below.append(_("validation {loss}").format(loss=decimal(job.valid_loss, _LOSS_DIGITS)))
    if best:
        text = _("best {loss} at step {step}")
        below.append(text.format(loss=decimal(best.loss, _LOSS_DIGITS), step=integer(best.step)))
    if history.base:
        loss = decimal(history.base.loss, _LOSS_DIGITS)
        below.append(_("{loss} before training").format(loss=loss))
    value = decimal(job.train_loss, _LOSS_DIGITS) if job.step else ""
    return {"label": _("loss"), "value": value, "below": below}


def _left(job: Job) -> Json:
    """The time left and when the job ends; the time taken of an ended job."""
    if job.finished and job.started:
        took = duration(job.finished - job.started)
        return {"label": _("took"), "value": took, "below": []}
    if job.queue_position and job.HasField("start_eta_seconds"):
        low, high = duration(job.start_eta_low_seconds), duration(job.start_eta_high_seconds)
        known = job.HasField("start_eta_low_seconds") and low != high
        below = [_("{low} to {high}").format(low=low, high=high)] if known else []
        return {"label": _("starts in"), "value": duration(job.start_eta_seconds), "below": below}
    if not job.HasField("eta_seconds") or job.eta_seconds < 1:  # an evaluation may follow
        return {"label": _("time left"), "value": "", "below": []}
    at = time.strftime("%H:%M", time.localtime(time.time() + job.eta_seconds))
    below = [_("done about {time}").format(time=at)]
    low, high = duration(job.eta_low_seconds), duration(job.eta_high_seconds)
    if job.HasField("eta_low_seconds") and job.HasField("eta_high_seconds") and low != high:
        below.insert(0, _("{low} to {high}").format(low=low, high=high))
    return {"label": _("time left"), "value": duration(job.eta_seconds), "below": below}


def _memory(history: History) -> Json:
    """The worker's footprint against its budget."""
    if not history.steps:
        return {"label": _("memory"), "value": "", "below": [], "share": None}
    last = history.steps[-1]
    used = last.footprint or last.peak_memory
    budget = history.plan.memory_budget if history.plan else 0
    return {
        "label": _("memory"),
        "value": size(used),
        "below": [_("of {budget}").format(budget=size(budget))] if budget else [],
        "share": min(1.0, used / budget) if budget else None,
    }


def _speed(history: History) -> Json:
    """Tokens per second; below it the learning rate."""
    if not history.steps:
        return {"label": _("tokens/s"), "value": "", "below": []}
    last = history.steps[-1]
    below = [_("learning rate {rate}").format(rate=rate(last.learning_rate))]
    return {"label": _("tokens/s"), "value": throughput(last.tokens_per_second), "below": below}


def _tone(event: Event) -> str:
    """Return the style of a log entry: warning, failed, best or plain."""
    match event.body:
        case Damaged():
            return "warning"
        case Notice(finding) if finding.status in (Status.WARNING, Status.FAILED):
            return str(finding.status)
        case Evaluated() as evaluated if evaluated.best:
            return "best"
    return "plain"


def _points(points: Points) -> list[list[float]]:
    return [[step, _figure(value)] for step, value in thinned(points, COLUMNS)]


def _figure(value: float) -> float:
    """Round to six significant digits, more than a screen can show."""
    return value if isinstance(value, int) else float(f"{value:.6g}")

"""Jobs as text: the table of all, and one at a glance."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from safetrain.views.labels import PHASES, state, word
from safetrain_proto.v1.jobs_pb2 import Job, JobState
from safetrain_shared.i18n import decimal, duration, integer, percent
from safetrain_shared.i18n import translate as _
from safetrain_shared.printable import one_line

_BAR = 24
_ENDED = ("succeeded", "failed", "cancelled")


def name_of(job: Job) -> str:
    """The job's state as a short word: running."""
    return JobState.Name(job.state).removeprefix("JOB_STATE_").lower()


def table(jobs: Sequence[Job]) -> list[str]:
    """One line a job under a line of headings, each column as wide as it needs."""
    head = ["", _("state"), _("name"), _("progress"), _("validation loss"), _("time"), _("output")]
    rows = [head] + [_row(job) for job in jobs]
    widths = [max(_width(row[i]) for row in rows) for i in range(len(head))]
    return ["  ".join(map(_padded, row, widths)).rstrip() for row in rows]


def _row(job: Job) -> list[str]:
    return [
        str(job.id),
        state(name_of(job)) + (f" ({job.queue_position})" if job.queue_position else ""),
        one_line(job.spec.name),
        _share(job),
        _loss(job),
        time_left(job),
        short_path(job.spec.output),
    ]


def _loss(job: Job) -> str:
    """The best validation loss, and before training: training loss falls however it overfits."""
    if job.best_loss and job.base_loss:
        values = decimal(job.base_loss, 3), decimal(job.best_loss, 3)
        return " → ".join(values)
    if job.best_loss:
        return decimal(job.best_loss, 3)
    return _("{loss} (training)").format(loss=decimal(job.train_loss, 3)) if job.step else ""


def glance(job: Job, others: Iterable[Job] = (), *, interrupted: str = "") -> list[str]:
    """One job in a few lines, and the queue behind it. `interrupted`: what happened meanwhile."""
    lines = [_title(job), *([interrupted] if interrupted else [])]
    lines += [
        f"  {label:<{12}}{value}"
        for label, value in [
            (_("model"), short_path(job.spec.model)),
            (_("data"), short_path(job.spec.train)),
            (_("starts from"), short_path(job.spec.start_adapter)),
            (_("output"), short_path(job.spec.output)),
            (_("progress"), progress(job)),
            (_("loss"), losses(job)),
            (_("time"), time_left(job)),
            (_("log"), short_path(job.log_path)),
        ]
        if value
    ]
    if job.HasField("cause"):
        lines.append(f"  {_cause(job)}")
    return lines + (queue(job, others) if name_of(job) not in _ENDED else next_steps(job))


def _cause(job: Job) -> str:
    """Straight from the message: `wire` would cost a tenth of the whole command."""
    from safetrain_shared.messages import sentence

    return sentence(job.cause.code, dict(job.cause.args.items()), fallback=job.cause.text)


def next_steps(job: Job) -> list[str]:
    """What can be done with a job that has ended, as commands."""
    if name_of(job) == "succeeded":
        does = [(_("ask it"), f'safetrain ask --job {job.id} "…"')]
        does += [(_("everything on a page"), f"safetrain report {job.id}")]
        does += [(_("for other programs"), f"safetrain export {job.id} --output …")]
    else:
        does = [(_("what troubled it"), f"safetrain diagnose {job.id}")]
        does += [(_("try again"), f"safetrain retry {job.id}")]
    return [f"  {label}: {command}" for label, command in does]


def queue(job: Job, others: Iterable[Job]) -> list[str]:
    """A line a job that waits behind this one."""
    waiting = sorted(
        (other for other in others if other.queue_position and other.id != job.id),
        key=lambda other: other.queue_position,
    )
    return [_("waiting behind: ") + ", ".join(map(_waiting, waiting))] if waiting else []


def _waiting(job: Job) -> str:
    name = f"{job.id} {one_line(job.spec.name)}".strip()
    return f"{name} ({time_left(job)})" if time_left(job) else name


def heading(job: Job) -> str:
    """Job 3 · farense · Mistral-7B-Instruct-v0.3-4bit."""
    model = one_line(job.spec.model).rstrip("/").rpartition("/")[2]
    return " · ".join(
        filter(None, [_("Job {id}").format(id=job.id), one_line(job.spec.name), model])
    )


def _title(job: Job) -> str:
    parts = [_("Job {id}").format(id=job.id), one_line(job.spec.name), state(name_of(job))]
    if job.phase and name_of(job) in ("running", "checking") and job.phase != "training":
        parts.append(word(PHASES, job.phase))
    return " · ".join(part for part in (*parts, asked(job), place(job)) if part)


def asked(job: Job) -> str:
    """What was asked of the job and is not yet done; empty where nothing was."""
    words = {"pause": _("will pause at the next step"), "cancel": _("will end soon")}
    return words.get(job.intent, job.intent)


def place(job: Job) -> str:
    """Its place in the queue; empty where it does not wait."""
    if not job.queue_position:
        return ""
    return _("number {place} in the queue").format(place=job.queue_position)


def progress(job: Job) -> str:
    """A bar, the share, step and epoch; empty before the first step is planned."""
    if not job.total_steps:
        return ""
    full = round(_BAR * min(1.0, job.step / job.total_steps))
    bar = "█" * full + "░" * (_BAR - full)
    text = _("step {step} of {total}").format(
        step=integer(job.step), total=integer(job.total_steps)
    )
    epochs = job.plan.settings.num_epochs
    if epochs:
        epoch = min(job.epoch + 1, epochs)
        text += " · " + _("epoch {epoch} of {epochs}").format(epoch=epoch, epochs=epochs)
    return f"{bar} {_share(job)} · {text}"


def losses(job: Job) -> str:
    """Loss in training, on the validation file, its best and before training; empty before all."""
    parts = [
        (_("training"), job.train_loss),
        (_("validation"), job.valid_loss),
        (_("best"), job.best_loss),
        (_("before training"), job.base_loss),
    ]
    return " · ".join(f"{label} {decimal(value, 3)}" for label, value in parts if value)


def time_left(job: Job) -> str:
    """Until the job ends, as a range where one is known; until it starts, where it waits."""
    if job.queue_position:
        return _start(job)
    if job.HasField("eta_low_seconds") and job.HasField("eta_high_seconds"):
        if job.eta_high_seconds < 1:
            return ""
        low, high = duration(job.eta_low_seconds), duration(job.eta_high_seconds)
        if low != high:
            return _("{low} to {high} left").format(low=low, high=high)
    if job.HasField("eta_seconds"):
        return _("{time} left").format(time=duration(job.eta_seconds))
    if job.finished and job.started:
        return _("took {time}").format(time=duration(job.finished - job.started))
    return ""


def _start(job: Job) -> str:
    """When a waiting job starts, as far as anybody can say."""
    if not job.HasField("start_eta_seconds"):
        return _("after job {id}").format(id=job.after) if job.after else ""
    likely = job.start_eta_seconds
    low, high = likely, likely
    if job.HasField("start_eta_low_seconds") and job.HasField("start_eta_high_seconds"):
        low, high = job.start_eta_low_seconds, job.start_eta_high_seconds
    if high < 1.0:
        return ""
    if duration(low) == duration(high):
        return _("starts in {time}").format(time=duration(likely))
    return _("starts in {low} to {high}").format(low=duration(low), high=duration(high))


def short_path(path: str) -> str:
    """A path below the current folder or the user's, as a person would write it, to be shown."""
    path = one_line(path)
    here = str(Path.cwd())
    if path.startswith(here + os.sep):
        return path.removeprefix(here + os.sep)
    user = str(Path.home())
    return "~" + path.removeprefix(user) if path.startswith(user + os.sep) else path


def clock(seconds: float) -> str:
    """The time of day of a moment, in the machine's zone."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _share(job: Job) -> str:
    if not job.total_steps:
        return ""
    return percent(min(1.0, job.step / job.total_steps), digits=0)


def _width(text: str) -> int:
    return len(click.unstyle(text))


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))

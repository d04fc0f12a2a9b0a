"""Jobs as text: the table of all jobs, and the summary of one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from safetrain.views.labels import PHASES, state, word
from safetrain_proto.v1.jobs_pb2 import Job, JobState
from safetrain_shared.i18n import decimal, duration, format_text, integer, percent
from safetrain_shared.i18n import translate as _
from safetrain_shared.printable import one_line

_BAR = 24
ENDED = ("succeeded", "failed", "cancelled")
ACTIVE = ("running", "checking", "interrupted")


def name_of(job: Job) -> str:
    """Return the job's state as a short name: running."""
    return JobState.Name(job.state).removeprefix("JOB_STATE_").lower()


def rank(job: Job) -> tuple[int, int, int]:
    """Sort key: active jobs, then the queue in its order, then ended jobs, the newest first."""
    if name_of(job) in ACTIVE:
        return 0, 0, job.id
    if job.queue_position:
        return 1, job.queue_position, job.id
    return 2, int(job.spec.evaluation.job > 0), -job.id  # an evaluation is no training to show


def table(jobs: Sequence[Job]) -> list[str]:
    """Return a line per job below a line of headings, in aligned columns."""
    head = ["", _("state"), _("name"), _("progress"), _("validation loss"), _("time"), _("output")]
    rows = [head] + [_row(job) for job in jobs]
    widths = [max(_width(row[i]) for row in rows) for i in range(len(head))]
    return ["  ".join(map(_padded, row, widths)).rstrip() for row in rows]


def _row(job: Job) -> list[str]:
    return [
        str(job.id),
        state(name_of(job)) + (f" ({job.queue_position})" if job.queue_position else ""),
        purpose(job) or one_line(job.spec.name),
        _share(job),
        _loss(job),
        time_left(job),
        short_path(job.spec.output),
    ]


def _loss(job: Job) -> str:
    """Return validation loss before training and at its best.

    Training loss, which falls even when a model overfits, stands in until there is one.
    """
    if job.best_loss and job.base_loss:
        values = decimal(job.base_loss, 3), decimal(job.best_loss, 3)
        return " → ".join(values)
    if job.best_loss:
        return decimal(job.best_loss, 3)
    return _("{loss} (training)").format(loss=decimal(job.train_loss, 3)) if job.step else ""


def summary(job: Job, others: Iterable[Job] = (), *, interrupted: str = "") -> list[str]:
    """Return one job in a few lines. `others`: all jobs; `interrupted`: a remark."""
    lines = [_title(job), *([interrupted] if interrupted else [])]
    if job.HasField("evaluation"):
        from safetrain.views.evaluation import head_lines  # only few jobs have one

        lines += [f"  {line}" for line in head_lines(job.evaluation)]
    lines += [
        f"  {label:<{12}}{value}"
        for label, value in [
            (_("model"), short_path(job.spec.model)),
            (_("data"), short_path(job.spec.train)),
            (_("starts from"), short_path(job.spec.start_adapter)),
            (_("output"), short_path(job.spec.output)),
            (_("settings"), settings_text(job)),
            (_("progress"), progress(job)),
            (_("loss"), losses(job)),
            (_("time"), time_left(job)),
            (_("log"), short_path(job.log_path)),
        ]
        if value
    ]
    if job.ranks:
        from safetrain.views.ranks import rank_lines  # only few jobs have several

        lines += [f"  {label:<{12}}{value}" for label, value in rank_lines(job.ranks)]
    if job.HasField("cause"):
        lines.append(f"  {_cause(job)}")
    return lines + (queue(job, others) if name_of(job) not in ENDED else next_steps(job))


def purpose(job: Job) -> str:
    """Return the purpose of a job that trains nothing; empty for a training."""
    trained = job.spec.evaluation.job
    return _("evaluation of job {id}").format(id=trained) if trained else ""


def _cause(job: Job) -> str:
    """Render the cause without `wire`, whose import takes a tenth of the command's time."""
    from safetrain_shared.messages import sentence

    return sentence(job.cause.code, dict(job.cause.args.items()), fallback=job.cause.text)


def next_steps(job: Job) -> list[str]:
    """Return the commands that make sense for an ended job, one a line."""
    return [f"  {label}: {command}" for label, command in next_commands(job)]


def next_commands(job: Job) -> list[tuple[str, str]]:
    """Return (what for, command) for an ended job; [] for any other."""
    if name_of(job) not in ENDED:
        return []
    if name_of(job) == "succeeded" and job.spec.evaluation.job:
        commands = [(_("all answers"), short_path(job.evaluation.path))]
    elif name_of(job) == "succeeded":
        commands = [(_("ask it"), f'safetrain ask --job {job.id} "…"')]
        commands += [(_("everything on a page"), f"safetrain report {job.id}")]
        commands += [(_("for other programs"), f"safetrain export {job.id} --output …")]
    else:
        commands = [(_("try again"), f"safetrain retry {job.id}")]
        if name_of(job) == "failed":
            commands.insert(0, (_("what troubled it"), f"safetrain diagnose {job.id}"))
    return commands


def settings_text(job: Job) -> str:
    """Return batch size and length of the plan, or of the forecast before there is one."""
    settings = (job.plan if job.HasField("plan") else job.forecast).settings
    if not settings.batch_size:
        return ""
    return _("batch_size {batch} × {accumulation}, {length} tokens").format(
        batch=settings.batch_size,
        accumulation=settings.gradient_accumulation,
        length=settings.max_seq_length,
    )


def queue(job: Job, others: Iterable[Job]) -> list[str]:
    """Return a line that names the jobs in the queue; [] where it is empty."""
    waiting = sorted(
        (other for other in others if other.queue_position and other.id != job.id),
        key=lambda other: other.queue_position,
    )
    return [_("waiting behind: ") + ", ".join(map(_waiting, waiting))] if waiting else []


def _waiting(job: Job) -> str:
    name = f"{job.id} {one_line(job.spec.name)}".strip()
    return f"{name} ({time_left(job)})" if time_left(job) else name


def heading(job: Job) -> str:
    """Return number, name and model: Job 3 · farense · Mistral-7B-Instruct-v0.3-4bit."""
    model = one_line(job.spec.model).rstrip("/").rpartition("/")[2]
    return " · ".join(
        filter(None, [_("Job {id}").format(id=job.id), one_line(job.spec.name), model])
    )


def _title(job: Job) -> str:
    name = purpose(job) or one_line(job.spec.name)
    parts = [_("Job {id}").format(id=job.id), name, state(name_of(job))]
    if job.phase and name_of(job) in ("running", "checking") and job.phase != "training":
        parts.append(word(PHASES, job.phase))
    return " · ".join(part for part in (*parts, pending_request(job), queue_place(job)) if part)


def pending_request(job: Job) -> str:
    """Return the pause or cancel that was requested and is not yet done; empty without one."""
    words = {"pause": _("will pause at the next step"), "cancel": _("will end soon")}
    return words.get(job.intent, job.intent)


def queue_place(job: Job) -> str:
    """Return the job's place in the queue; empty where it does not wait."""
    if not job.queue_position:
        return ""
    return _("number {place} in the queue").format(place=job.queue_position)


def progress(job: Job) -> str:
    """Return a bar, the percentage, step and epoch; empty before the steps are planned."""
    if asking(job):
        answered, total = job.questions_answered, job.questions_total
        text = _("{answered:int} of {total:int} {total:|question|questions} answered")
        text = format_text(text, {"answered": answered, "total": total})
        return f"{_bar(answered / total)} {_share(job)} · {text}"
    if not job.total_steps:
        return ""
    bar = _bar(min(1.0, job.step / job.total_steps))
    return f"{bar} {_share(job)} · {steps_text(job)}"


def steps_text(job: Job) -> str:
    """Return step and epoch: step 3 of 9 · epoch 1 of 3; empty before the steps are planned."""
    if not job.total_steps:
        return ""
    text = _("step {step} of {total}").format(
        step=integer(job.step), total=integer(job.total_steps)
    )
    settings = job.plan.settings
    epochs = 0 if settings.max_steps else settings.num_epochs
    if epochs:
        epoch = min(job.epoch + 1, epochs)
        text += " · " + _("epoch {epoch} of {epochs}").format(epoch=epoch, epochs=epochs)
    return text


def asking(job: Job) -> bool:
    """Return whether the job answers questions now, rather than trains."""
    evaluates = job.phase == "asking" or job.spec.evaluation.job > 0
    return job.questions_total > 0 and evaluates


def _bar(share: float) -> str:
    full = round(_BAR * share)
    return "█" * full + "░" * (_BAR - full)


def losses(job: Job) -> str:
    """Return the losses: training, validation, its best, before training; empty before all."""
    parts = [
        (_("training"), job.train_loss),
        (_("validation"), job.valid_loss),
        (_("best"), job.best_loss),
        (_("before training"), job.base_loss),
    ]
    return " · ".join(f"{label} {decimal(value, 3)}" for label, value in parts if value)


def time_left(job: Job) -> str:
    """Return the time until the job ends, or starts; the time taken of an ended job."""
    if job.queue_position:
        return _start(job)
    if job.HasField("eta_low_seconds") and job.HasField("eta_high_seconds"):
        if job.eta_high_seconds < 1:
            return ""
        low, high = duration(job.eta_low_seconds), duration(job.eta_high_seconds)
        if low != high:
            return _("{low} to {high} left").format(low=low, high=high)
    if job.HasField("eta_seconds") and job.eta_seconds >= 1:
        return _("{time} left").format(time=duration(job.eta_seconds))
    if job.finished and job.started:
        return _("took {time}").format(time=duration(job.finished - job.started))
    return ""


def _start(job: Job) -> str:
    """Return the estimated start of a waiting job; empty where it is unknown."""
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
    """Return a path for display: relative to the current folder, else with ~ for the home."""
    path = one_line(path)
    here = str(Path.cwd())
    if path.startswith(here + os.sep):
        return path.removeprefix(here + os.sep)
    user = str(Path.home())
    return "~" + path.removeprefix(user) if path.startswith(user + os.sep) else path


def clock(seconds: float) -> str:
    """Return the local time of day: 13:05:09. `seconds`: since the epoch, UTC."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _share(job: Job) -> str:
    if asking(job):
        return percent(job.questions_answered / job.questions_total, digits=0)
    if not job.total_steps:
        return ""
    return percent(min(1.0, job.step / job.total_steps), digits=0)


def _width(text: str) -> int:
    return len(click.unstyle(text))


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))

"""One frame of the live view: a job and its history as the lines of a screen. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from textwrap import wrap

from rich.text import Text

from safetrain.terminal.braille_curve import MARK, curve
from safetrain.views.evaluation import head_lines
from safetrain.views.job import (
    clock,
    name_of,
    pending_request,
    progress,
    queue,
    queue_place,
    settings_text,
    short_path,
    time_left,
)
from safetrain.views.labels import PHASES, SIGNS, STATE_COLOURS, word
from safetrain.views.ranks import rank_lines
from safetrain_proto.v1.jobs_pb2 import Job
from safetrain_shared.arg_words import STATES
from safetrain_shared.history import History
from safetrain_shared.i18n import decimal, duration, integer, percent, rate, size, throughput
from safetrain_shared.i18n import translate as _
from safetrain_shared.jobs import FINAL, JobState
from safetrain_shared.messages import say
from safetrain_shared.printable import printable

_NOTICES = 3
_ACTIVE = (JobState.RUNNING, JobState.CHECKING)
_LABEL = 14


@dataclass
class FrameData:
    """What a frame shows. `now`: seconds since the epoch; `hint`: replaces the last line."""

    job: Job
    history: History
    others: Iterable[Job] = field(default_factory=tuple)
    hint: str = ""
    now: float = 0.0


def frame(data: FrameData, width: int, height: int) -> list[Text]:
    """Return exactly `height` lines of at most `width` characters."""
    head = [_title(data), _progress(data, width), *_verdict(data), *_holding(data, width)]
    legend, numbers, queue = _legend(data.history, width), _numbers(data, width), _queue(data)
    foot = Text(data.hint or _("q leaves, the training goes on"), "dim")
    free = height - len([*head, *legend, *numbers, *queue, foot])
    notices = _notices(data)[-free:] if free > 0 else []
    gap = [Text()]
    free -= len(notices)  # for the curve and a line above and below it
    plot = _curve(data, width, free - 2) if free >= 5 else []
    lines = [*head, *gap * (free > 0), *plot, *legend, *gap * (free > 1)]
    lines = [*lines, *numbers, *notices, *queue][: height - 1]
    lines += gap * (height - 1 - len(lines)) + [foot]
    for text in lines:
        if text.plain != (clean := printable(text.plain)):
            text.plain = clean
        text.truncate(width, overflow="ellipsis")
    return lines


def _title(data: FrameData) -> Text:
    state = str(data.history.state or name_of(data.job))
    title = Text.assemble(
        ("safetrain", "bold"),
        " · ",
        _("Job {id}").format(id=data.job.id),
        f" {data.job.spec.name}".rstrip(),
        " · ",
        (word(STATES, state), STATE_COLOURS.get(state, "")),
    )
    phase = data.history.phase or (data.job.phase if state == JobState.CHECKING else "")
    if phase not in ("", "training", state) and data.history.state not in FINAL:
        title.append(f" · {word(PHASES, phase)}")
    for text in _remarks(data.job, state):
        title.append(f" · {text}")
    if data.history.attempt > 1:
        title.append(" · " + _("attempt {count}").format(count=data.history.attempt), "dim")
    return title


def _remarks(job: Job, state: str) -> list[str]:
    """Return place and start of a waiting job, or what was requested of an active one."""
    if state == JobState.QUEUED:
        return [text for text in (queue_place(job), time_left(job)) if text]
    return [text for text in (pending_request(job),) if text and state in _ACTIVE]


def _holding(data: FrameData, width: int) -> list[Text]:
    """Return why the training is held, on two lines at most."""
    why = data.history.holding
    if why is None:
        return []
    mark, colour = SIGNS[why.status]
    text = f"{mark} {say(why)}"
    return [Text(line, colour or "") for line in wrap(text, width, max_lines=2, placeholder=" …")]


def _verdict(data: FrameData) -> list[Text]:
    """Return the conclusion of the evaluation and its figures; nothing without one."""
    found = data.history.evaluation
    return [Text.from_ansi(line) for line in head_lines(found)[:2]] if found else []


def _progress(data: FrameData, width: int) -> Text:
    history = data.history
    if history.answered and history.phase in ("asking", "comparing"):
        return Text(progress(data.job), "dim")
    if not history.steps:
        return Text(progress(data.job) or _("no step yet"), "dim")
    last = history.steps[-1]
    share = min(1.0, last.step / max(1, last.total_steps))
    parts = [
        percent(share, digits=0),
        _("step {step} of {total}").format(
            step=integer(last.step), total=integer(last.total_steps)
        ),
    ]
    if history.plan and not history.plan.settings.max_steps:
        epochs = history.plan.settings.num_epochs
        parts.append(
            _("epoch {epoch} of {epochs}").format(epoch=min(last.epoch + 1, epochs), epochs=epochs)
        )
    if history.state is JobState.RUNNING:
        left = max(0.0, last.eta_seconds - max(0.0, data.now - history.last_time))
        if left >= 1:
            parts.append(_("{time} left").format(time=duration(left)))
    text = " · ".join(parts)
    bar = max(6, min(40, width - len(text) - 2))
    full = round(bar * share)
    return Text.assemble(("█" * full, "green"), ("░" * (bar - full), "dim"), f" {text}")


def _curve(data: FrameData, width: int, height: int) -> list[Text]:
    history = data.history
    train = [(step.step, step.loss) for step in history.steps]
    valid = [(evaluated.step, evaluated.loss) for evaluated in history.evaluations]
    lines = [Text(row) for row in curve(train, valid, width, height)]
    for line in lines:
        line.highlight_regex(r"[\u2800-\u28ff]+", "cyan")
        line.highlight_regex(MARK, "bold magenta")
    return lines


def _legend(history: History, width: int) -> list[Text]:
    """Return the losses as numbers, on as many lines as they need."""
    parts = []
    if history.steps:
        value = decimal(history.steps[-1].loss, 4)
        parts.append(Text.assemble(("⠤⠤ ", "cyan"), _("training"), f" {value}"))
    if history.evaluations:
        value = decimal(history.evaluations[-1].loss, 4)
        parts.append(Text.assemble((f"{MARK} ", "bold magenta"), _("validation"), f" {value}"))
    if history.best:
        value, step = decimal(history.best.loss, 4), integer(history.best.step)
        parts.append(Text(_("best {loss} at step {step}").format(loss=value, step=step), "bold"))
    if history.base:
        value = decimal(history.base.loss, 4)
        parts.append(Text(_("{loss} before training").format(loss=value)))
    lines = [Text(_("loss") + ":")] if parts else []
    for part in parts:
        if lines[-1].cell_len + 3 + part.cell_len > width:
            lines.append(Text(" "))
        lines[-1].append("  ").append_text(part)
    return lines


def _numbers(data: FrameData, width: int) -> list[Text]:
    history, spec = data.history, data.job.spec
    rows = []
    if not history.steps:
        rows = [
            (_("model"), short_path(spec.model)),
            (_("data"), short_path(spec.train)),
            (_("output"), short_path(spec.output)),
            (_("settings"), settings_text(data.job)),
        ]
    else:
        last = history.steps[-1]
        speed = _("{count} tokens/s").format(count=throughput(last.tokens_per_second))
        rows.append((_("learning rate"), f"{rate(last.learning_rate)} · {speed}"))
        rows.append((_("memory"), _memory(history, width)))
    if history.state is JobState.RUNNING:
        rows += rank_lines(data.job.ranks)
    if history.checkpoint:
        rows.append((_("checkpoint"), short_path(history.checkpoint.path)))
    return [Text.assemble((f"{label:<{_LABEL}}", "dim"), value) for label, value in rows if value]


def _memory(history: History, width: int) -> str:
    last = history.steps[-1]
    used = last.footprint or last.peak_memory
    budget = history.plan.memory_budget if history.plan else 0
    if not budget:
        return size(used)
    text = _("{used} of {budget}").format(used=size(used), budget=size(budget))
    room = max(6, min(20, width - _LABEL - len(text) - 2))
    full = min(room, round(room * used / budget))
    return f"{'█' * full}{'░' * (room - full)} {text}"


def _notices(data: FrameData) -> list[Text]:
    lines = []
    past = [n for n in data.history.notices if n.finding is not data.history.holding]
    for notice in past[-_NOTICES:]:
        mark, colour = SIGNS[notice.finding.status]
        text = f" {clock(notice.time)} {say(notice.finding)}"
        lines.append(Text.assemble((mark, colour or ""), text))
    if data.history.cause:
        lines.append(Text(say(data.history.cause), "bold"))
    return lines


def _queue(data: FrameData) -> list[Text]:
    return [Text(line, "dim") for line in queue(data.job, data.others)]

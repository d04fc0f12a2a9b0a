"""The charts of a run as data, drawn as PNG and as SVG and described for screen readers."""

from __future__ import annotations

from dataclasses import dataclass

from safetrain.views.curves import Curves, Points, smoothed
from safetrain_shared.i18n import decimal, integer, number, size, throughput
from safetrain_shared.i18n import translate as _

_GIB = 2**30
_FEW = 60  # lines of at most so many points show each as a dot
_FAR = 2.0  # a limit beyond so many times the highest value would flatten the curve


@dataclass(frozen=True, slots=True)
class Line:
    """One curve. `tone`: its colour, 1 or 2; `staircase`: a value holds until the next."""

    label: str
    points: Points
    tone: int
    faint: bool = False
    staircase: bool = False
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Label:
    """A named position on an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart; x is the optimizer step, from 0 to a little beyond `last_step`.

    `best`: a point to mark, (step, value, label). `limit`: a value not to be exceeded. `fallbacks`:
    the steps at which memory use was reduced. `caption`: the chart in words.
    """

    name: str
    title: str
    y_label: str
    lines: tuple[Line, ...]
    caption: str
    last_step: int
    from_zero: bool = True
    best: tuple[int, float, str] | None = None
    limit: Label | None = None
    epochs: tuple[Label, ...] = ()
    checkpoints: tuple[int, ...] = ()
    fallbacks: tuple[int, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw yet."""
        return not self.lines


def fitting(chart: Chart, characters: float) -> list[Label]:
    """Return the epochs whose labels fit side by side; `characters`: the width of the plot."""
    kept: list[Label] = []
    free = 0.0
    for label in chart.epochs:
        start = label.at / max(1, chart.last_step) * characters
        if free <= start <= characters - len(label.text):
            kept.append(label)
            free = start + len(label.text) + 1
    return kept


def loss(curves: Curves) -> Chart:
    """Return the chart of training and validation loss, the best marked."""
    raw, valid, best = curves.line("loss"), curves.validation, curves.best
    smooth = smoothed(raw)
    lines = [Line(_("training"), raw, 1, faint=bool(smooth))]
    if smooth:
        lines.append(Line(_("training, running mean"), smooth, 1))
    lines.append(Line(_("validation"), valid, 2, dots=len(valid) <= _FEW))
    caption = [
        _trend(_("Loss in training"), smooth or raw),
        _trend(_("Validation loss"), valid),
    ]
    mark = None
    if best is not None:
        label = _("best: {loss} at step {step}")
        label = label.format(loss=decimal(best.loss, 3), step=integer(best.step))
        mark = (best.step, best.loss, label)
        text = _("It is lowest at step {step}: {loss}.")
        caption.append(text.format(step=integer(best.step), loss=decimal(best.loss, 3)))
    return _chart(
        curves,
        "loss",
        _("Loss"),
        _("loss, mean per token"),
        lines,
        caption=" ".join(filter(None, caption)),
        from_zero=False,
        best=mark,
    )


def learning_rate(curves: Curves) -> Chart:
    """Return the chart of the learning rate."""
    points = curves.line("learning_rate")
    lines = [Line(_("learning rate of each step"), points, 1)]
    caption = ""
    if points:
        text = _("The learning rate is {highest} at most, and {now} at step {step}.")
        highest = max(value for _step, value in points)
        step, now = points[-1]
        caption = text.format(highest=_short(highest), now=_short(now), step=integer(step))
    title = _("Learning rate")
    return _chart(
        curves,
        "learning_rate",
        title,
        _("learning rate of each step"),
        lines,
        caption=caption,
    )


def budget_in_view(budget: int, highest: float) -> int:
    """Return the budget, 0 where it is so far above `highest` that it would flatten the curve."""
    return budget if budget <= _FAR * highest else 0


def memory(curves: Curves) -> Chart:
    """Return the chart of footprint and MLX's peak against the budget, in GiB."""
    footprint, peak = _gigabytes(curves, "footprint"), _gigabytes(curves, "peak_memory")
    lines = [
        Line(_("footprint of the whole process"), footprint, 1),
        Line(_("peak of MLX's memory"), peak, 2, staircase=True),
    ]
    budget = curves.plan.memory_budget if curves.plan else 0
    label = _("budget: {size}").format(size=size(budget))
    caption, title, shown = "", _("Memory against the budget"), budget > 0
    if footprint and peak:
        text = _("The footprint reaches {footprint}, MLX's peak {peak}.")
        highest = [_GIB * max(value for _step, value in points) for points in (footprint, peak)]
        caption = text.format(footprint=size(highest[0]), peak=size(highest[1]))
        if budget and not budget_in_view(budget, max(highest)):
            title, shown = _("Memory (budget: {size})").format(size=size(budget)), False
    return _chart(
        curves,
        "memory_usage",
        title,
        _("memory, GiB"),
        lines,
        caption=f"{caption} {label[:1].upper()}{label[1:]}." if budget else caption,
        limit=Label(budget / _GIB, label) if shown else None,
    )


def speed(curves: Curves) -> Chart:
    """Return the chart of tokens per second."""
    raw = curves.line("tokens_per_second")
    smooth = smoothed(raw)
    lines = [Line(_("tokens per second"), raw, 1, faint=bool(smooth))]
    if smooth:
        lines.append(Line(_("running mean"), smooth, 1))
    caption = ""
    if raw:
        caption = _("{count} tokens per second on average.").format(
            count=throughput(curves.mean_speed)
        )
    return _chart(
        curves,
        "tokens_per_second",
        _("Speed"),
        _("tokens per second"),
        lines,
        caption=caption,
    )


def _chart(
    curves: Curves,
    name: str,
    title: str,
    y_label: str,
    lines: list[Line],
    *,
    caption: str,
    from_zero: bool = True,
    best: tuple[int, float, str] | None = None,
    limit: Label | None = None,
) -> Chart:
    """Return a chart with the epochs, checkpoints and back-offs, which all charts share."""
    return Chart(
        name=name,
        title=title,
        y_label=y_label,
        lines=tuple(line for line in lines if line.points),
        caption=caption,
        last_step=curves.last_step,
        from_zero=from_zero,
        best=best,
        limit=limit,
        epochs=_epochs(curves),
        checkpoints=tuple(saved.step for saved in curves.checkpoints),
        fallbacks=tuple(fallback.step for fallback in curves.fallbacks),
    )


def _epochs(curves: Curves) -> tuple[Label, ...]:
    """Return the start of each epoch but the first."""
    text = _("epoch {number}")
    return tuple(Label(step, text.format(number=epoch + 1)) for step, epoch in curves.epochs)


def _gigabytes(curves: Curves, name: str) -> Points:
    return [(step, value / _GIB) for step, value in curves.line(name) if value > 0]


def _trend(what: str, points: Points) -> str:
    """Return a curve in one sentence; empty for an empty curve."""
    if not points:
        return ""
    (start, first), (end, last) = points[0], points[-1]
    if start == end:
        text = _("{what} is {last} at step {end}.")
        return text.format(what=what, last=decimal(last, 3), end=integer(end))
    text = _("{what} goes from {first} at step {start} to {last} at step {end}.")
    return text.format(
        what=what,
        first=decimal(first, 3),
        start=integer(start),
        last=decimal(last, 3),
        end=integer(end),
    )


def _short(value: float) -> str:
    """Format with three significant digits."""
    return number(float(f"{value:.3g}"))

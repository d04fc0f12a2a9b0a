"""Renders the charts of a run as inline SVG; the page's CSS colours it for light and dark mode.

CSS classes: chart, frame, grid, tick, name, epoch, line, tone-1, tone-2, faint, dot, best,
limit, checkpoint, backoff.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from safetrain.views.charts import Chart, Line, fitting
from safetrain.views.curves import thinned
from safetrain_shared.i18n import integer, number
from safetrain_shared.i18n import translate as _

WIDE, NARROW = (760, 320), (460, 270)  # width and height of a large and of a small chart
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 14, 22, 46
_CHARACTER = 12.5  # width of a character of an epoch's label on the smallest screen
_NONE = Markup("")


@dataclass(frozen=True, slots=True)
class _Frame:
    """The plotted area, and the mapping from data to SVG coordinates."""

    width: int
    height: int
    right: float
    low: float
    high: float

    @property
    def edge(self) -> int:
        """The right end of the area."""
        return self.width - _RIGHT

    @property
    def bottom(self) -> int:
        """The y coordinate of the x axis."""
        return self.height - _BOTTOM

    def x(self, step: float) -> float:
        """Return the x coordinate of a step."""
        return round(_LEFT + step / self.right * (self.edge - _LEFT), 1)

    def y(self, value: float) -> float:
        """Return the y coordinate of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.bottom - share * (self.bottom - _TOP), 1)


def svg(chart: Chart, extent: tuple[int, int] = WIDE) -> Markup:
    """Return the SVG, with a title and a description for screen readers."""
    frame = _framed(chart, *extent)
    parts = [*_axes(chart, frame), *_below(chart, frame)]
    parts += [part for line in chart.lines for part in _line(line, frame)]
    parts += _above(chart, frame)
    return Markup(
        '<svg class="chart" viewBox="0 0 {w} {h}" role="img" '
        'aria-labelledby="{name}-title {name}-caption">'
        '<title id="{name}-title">{title}</title>'
        '<desc id="{name}-caption">{caption}</desc>{parts}</svg>'
    ).format(
        w=frame.width,
        h=frame.height,
        name=chart.name,
        title=chart.title,
        caption=chart.caption,
        parts=_NONE.join(parts),
    )


def legend(chart: Chart) -> list[tuple[str, str]]:
    """Return the legend: (CSS class of the sign, label)."""
    entries = [(f"tone-{line.tone}{' faint' * line.faint}", line.label) for line in chart.lines]
    if chart.best is not None:
        entries.append(("best", chart.best[2]))
    if chart.limit is not None:
        entries.append(("limit", chart.limit.text))
    if chart.checkpoints:
        entries.append(("checkpoint", _("checkpoint")))
    if chart.fallbacks:
        entries.append(("backoff", _("back-off: less memory")))
    return entries


def ticks(low: float, high: float, at_most: int) -> list[float]:
    """Return round numbers from `low` to `high`, 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / at_most
    power = 10.0 ** math.floor(math.log10(rough))
    apart = next(power * unit for unit in (1, 2, 5, 10) if power * unit >= rough * (1 - 1e-9))
    first = math.ceil(low / apart - 1e-9)
    last = math.floor(high / apart + 1e-9)
    return [round(count * apart, 12) for count in range(first, last + 1)]


def _framed(chart: Chart, width: int, height: int) -> _Frame:
    values = [value for line in chart.lines for _step, value in line.points]
    if chart.limit is not None:
        values.append(chart.limit.at)
    low, high = min(values, default=0.0), max(values, default=1.0)
    if chart.from_zero:
        low, high = 0.0, 1.08 * high or 1.0
    else:
        room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        low, high = low - room, high + room
    return _Frame(width, height, 1.02 * max(1, chart.last_step), low, high)


def _axes(chart: Chart, frame: _Frame) -> Iterator[Markup]:
    bottom, left, right = frame.bottom, _LEFT, frame.edge
    for value in ticks(frame.low, frame.high, 6):
        y = frame.y(value)
        yield Markup(
            '<path class="grid" d="M{left} {y}H{right}"/>'
            '<text class="tick" x="{x}" y="{text_y}" text-anchor="end">{text}</text>'
        ).format(left=left, right=right, y=y, x=left - 8, text_y=y + 4, text=number(value))
    for step in ticks(0, frame.right, frame.width // 90):
        if step == int(step):
            yield Markup(
                '<path class="frame" d="M{x} {bottom}v5"/>'
                '<text class="tick" x="{x}" y="{y}" text-anchor="middle">{text}</text>'
            ).format(x=frame.x(step), bottom=bottom, y=bottom + 19, text=integer(step))
    yield Markup('<path class="frame" d="M{left} {top}V{bottom}H{right}"/>').format(
        left=left, top=_TOP, bottom=bottom, right=right
    )
    yield Markup(
        '<text class="name" x="{x}" y="{y}" text-anchor="end">{text}</text>'
        '<text class="name" x="{left}" y="13">{label}</text>'
    ).format(x=right, y=frame.height - 8, text=_("optimizer step"), left=left, label=chart.y_label)


def _below(chart: Chart, frame: _Frame) -> Iterator[Markup]:
    """Yield what lies behind the curves: epochs and back-offs."""
    for epoch in fitting(chart, (frame.edge - _LEFT) / _CHARACTER):
        yield Markup(
            '<path class="grid" d="M{x} {top}V{bottom}"/>'
            '<text class="epoch" x="{text_x}" y="{y}">{text}</text>'
        ).format(
            x=frame.x(epoch.at),
            top=_TOP,
            bottom=frame.bottom,
            text_x=frame.x(epoch.at) + 4,
            y=_TOP + 9,
            text=epoch.text,
        )
    for step in chart.fallbacks:
        yield Markup('<path class="backoff" d="M{x} {top}V{bottom}"/>').format(
            x=frame.x(step), top=_TOP, bottom=frame.bottom
        )


def _line(line: Line, frame: _Frame) -> Iterator[Markup]:
    """Yield a curve with every peak, and its dots."""
    points = [
        (frame.x(step), frame.y(value)) for step, value in thinned(line.points, frame.edge - _LEFT)
    ]
    classes = f"tone-{line.tone}{' faint' * line.faint}"
    yield Markup('<path class="line {classes}" d="{d}"/>').format(
        classes=classes, d=_path(points, line.staircase)
    )
    for x, y in points if line.dots or len(points) == 1 else ():
        yield Markup('<circle class="dot {classes}" cx="{x}" cy="{y}" r="3"/>').format(
            classes=classes, x=x, y=y
        )


def _path(points: list[tuple[float, float]], staircase: bool) -> str:
    (x, y), *others = points
    return f"M{x} {y}" + "".join(f"H{x}V{y}" if staircase else f"L{x} {y}" for x, y in others)


def _above(chart: Chart, frame: _Frame) -> Iterator[Markup]:
    """Yield what lies before the curves: the limit, checkpoints, the best point."""
    bottom = frame.bottom
    if chart.limit is not None:
        yield Markup('<path class="limit" d="M{left} {y}H{right}"/>').format(
            left=_LEFT, right=frame.edge, y=frame.y(chart.limit.at)
        )
    for step in chart.checkpoints:
        yield Markup('<path class="checkpoint" d="M{x} {y}l-4.5 8h9z"/>').format(
            x=frame.x(step), y=bottom - 4
        )
    if chart.best is not None:
        step, value, _text = chart.best
        yield Markup('<path class="best" d="{d}"/>').format(d=star(frame.x(step), frame.y(value)))


def star(x: float, y: float, radius: float = 9.0) -> str:
    """Return the path of a five-pointed star around a point."""
    corners = [
        (
            round(x + radius * (0.42 if i % 2 else 1.0) * math.sin(i * math.pi / 5), 1),
            round(y - radius * (0.42 if i % 2 else 1.0) * math.cos(i * math.pi / 5), 1),
        )
        for i in range(10)
    ]
    return "M" + "L".join(f"{a} {b}" for a, b in corners) + "z"

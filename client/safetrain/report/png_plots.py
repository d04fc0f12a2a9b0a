"""Renders the charts of a run as PNG with matplotlib.

matplotlib comes with the extra `plots`; nothing else in the client imports it or numpy.
"""

from __future__ import annotations

import io
import os
from typing import Any

os.environ.setdefault("MPLBACKEND", "agg")  # no window system needed

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from safetrain.views import charts
from safetrain.views.charts import Chart, Line, fitting
from safetrain.views.curves import Curves, thinned
from safetrain_shared.i18n import integer, number
from safetrain_shared.i18n import translate as _

WIDTH, HEIGHT, DPI = 10.0, 5.6, 160  # inches and dots an inch: 1600 × 896
COLUMNS = 1400  # pixel columns of the plotted area
_CHARACTER = 11.0  # pixels, the width of a character of an epoch's label, at most

# Wong's palette for all kinds of colour vision: Nature Methods 8, 441 (2011).
_TONES = {1: "#0072b2", 2: "#d55e00"}
_BEST, _LIMIT = "#00795a", "#b3123c"
_INK, _GREY, _GRID = "#1c2128", "#5f6670", "#e3e6ea"


def draw(curves: Curves, title: str) -> dict[str, bytes]:
    """Return PNG images by file name, in the language in use. `title`: names the run.

    `curves` must contain a logged step or an evaluation.
    """
    shown = (charts.loss(curves), charts.learning_rate(curves), charts.memory(curves))
    return {f"{chart.name}.png": render(chart, title) for chart in shown}


def render(chart: Chart, title: str) -> bytes:
    """Return one chart as PNG."""
    engine = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.1)
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout=engine, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _style(axes, chart)
    axes.set_title(chart.title, loc="left", fontsize=15, fontweight="bold", color=_INK, pad=26)
    axes.text(0, 1.03, title, transform=axes.transAxes, fontsize=10, color=_GREY)
    for line in chart.lines:
        _line(axes, line)
    _marks(axes, chart)
    _limits(axes, chart)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=10)
    png = io.BytesIO()
    metadata = {"Title": f"{chart.title} · {title}", "Description": chart.caption}
    figure.savefig(png, format="png", metadata={**metadata, "Software": "safetrain"})
    return png.getvalue()


def _style(axes: Axes, chart: Chart) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GREY)
    axes.tick_params(colors=_INK, labelsize=10, color=_GREY)
    axes.grid(axis="y", color=_GRID, linewidth=1)
    axes.set_axisbelow(True)
    axes.set_xlabel(_("optimizer step"), fontsize=11, color=_INK)
    axes.set_ylabel(chart.y_label, fontsize=11, color=_INK)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _at: integer(x)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _at: number(round(y, 12))))


def _line(axes: Axes, line: Line) -> None:
    """Draw a curve with every peak; a single point is drawn as a dot."""
    points = thinned(line.points, COLUMNS)
    axes.plot(
        [step for step, _value in points],
        [value for _step, value in points],
        color=_TONES[line.tone],
        alpha=0.35 if line.faint else 1.0,
        linewidth=1.2 if line.faint else 1.8,
        marker="o" if line.dots or len(points) == 1 else "",
        markersize=5,
        drawstyle="steps-post" if line.staircase else "default",
        label=line.label,
    )


def _marks(axes: Axes, chart: Chart) -> None:
    """Draw the best point, the limit, epochs, checkpoints and back-offs."""
    if chart.best is not None:
        step, value, label = chart.best
        star: dict[str, Any] = {
            "markersize": 17,
            "markeredgecolor": "white",
            "markeredgewidth": 1.2,
            "zorder": 5,
        }
        axes.plot([step], [value], "*", color=_BEST, label=label, **star)
    if chart.limit is not None:
        dashes = (0, (6, 3))
        at, label = chart.limit.at, chart.limit.text
        axes.axhline(at, color=_LIMIT, linewidth=1.8, linestyle=dashes, label=label)
    for epoch in fitting(chart, COLUMNS / _CHARACTER):
        axes.axvline(epoch.at, color=_GRID, linewidth=1, zorder=0)
        place: dict[str, Any] = {
            "xycoords": ("data", "axes fraction"),
            "textcoords": "offset points",
        }
        axes.annotate(
            epoch.text, (epoch.at, 1), (4, -2), va="top", fontsize=8.5, color=_GREY, **place
        )
    if chart.checkpoints:
        across = axes.get_xaxis_transform()  # x in steps, y as a share of the height
        flat = [0.0] * len(chart.checkpoints)
        look: dict[str, Any] = {"color": _GREY, "markersize": 7, "clip_on": False, "zorder": 4}
        axes.plot(chart.checkpoints, flat, "^", transform=across, label=_("checkpoint"), **look)
    for index, step in enumerate(chart.fallbacks):
        name = None if index else _("back-off: less memory")
        axes.axvline(step, color=_LIMIT, linewidth=1.4, linestyle=":", label=name)


def _limits(axes: Axes, chart: Chart) -> None:
    axes.set_xlim(0, 1.02 * max(1, chart.last_step))
    if chart.from_zero:
        values = [value for line in chart.lines for _step, value in line.points]
        top = max([*values, chart.limit.at if chart.limit else 0.0])
        axes.set_ylim(0, 1.08 * top or 1.0)

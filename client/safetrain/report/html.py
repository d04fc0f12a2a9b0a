"""HTML building blocks: sections, tables, lists, figures; arguments are escaped."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from safetrain.report.svg import legend, star, svg
from safetrain.views.charts import Chart
from safetrain.views.labels import SIGNS
from safetrain_shared.findings import Status
from safetrain_shared.i18n import marked, translate
from safetrain_shared.i18n import translate as _

Part = str | Markup
EMPTY = Markup("")
_MONTHS = (
    marked("January"),
    marked("February"),
    marked("March"),
    marked("April"),
    marked("May"),
    marked("June"),
    marked("July"),
    marked("August"),
    marked("September"),
    marked("October"),
    marked("November"),
    marked("December"),
)
_VERDICTS = {
    Status.PASSED: marked("passed"),
    Status.WARNING: marked("warning"),
    Status.FAILED: marked("failed"),
    Status.SKIPPED: marked("skipped"),
    Status.INFO: marked("note"),
}


def section(name: str, title: str, *parts: Part) -> Markup:
    """Return a section with a heading; `name` is the anchor for links."""
    return Markup(
        '<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>{parts}</section>'
    ).format(name=name, title=title, parts=EMPTY.join(parts))


def paragraph(text: Part) -> Markup:
    """Return a paragraph."""
    return Markup("<p>{}</p>").format(text)


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[Part]], look: str = ""
) -> Markup:
    """Return a table that scrolls on narrow screens; the first column holds row headers.

    `look`: a class for the style sheet.
    """
    columns = EMPTY.join(Markup('<th scope="col">{}</th>').format(name) for name in head)
    return Markup(
        '<div class="scroll" role="region" aria-label="{caption}" tabindex="0">'
        '<table class="{look}"><caption>{caption}</caption><thead><tr>{columns}</tr></thead>'
        "<tbody>{rows}</tbody></table></div>"
    ).format(caption=caption, look=look, columns=columns, rows=EMPTY.join(map(_row, rows)))


def _row(cells: Sequence[Part]) -> Markup:
    first, *others = cells
    data = EMPTY.join(Markup("<td>{}</td>").format(cell) for cell in others)
    return Markup('<tr><th scope="row">{}</th>{}</tr>').format(first, data)


def verdicts(findings: Iterable[tuple[Status, str]]) -> Markup:
    """Return findings as a list, each with the sign of its status."""
    items = EMPTY.join(
        Markup('<li class="{look}">{sign} <span>{text}</span></li>').format(
            look=status.value, sign=sign(status), text=text
        )
        for status, text in findings
    )
    return Markup('<ul class="verdicts">{}</ul>').format(items) if items else EMPTY


def sign(status: Status) -> Markup:
    """Return the sign of a status, labelled for screen readers."""
    return Markup('<span class="sign" role="img" aria-label="{name}">{mark}</span>').format(
        name=translate(_VERDICTS[status]), mark=SIGNS[status][0]
    )


def tiles(figures: Iterable[tuple[str, str, str]]) -> Markup:
    """Return large figures: (label, figure, remark)."""
    made = EMPTY.join(
        Markup("<div><dt>{}</dt><dd><strong>{}</strong> <span>{}</span></dd></div>").format(*each)
        for each in figures
    )
    return Markup('<dl class="tiles">{}</dl>').format(made)


def figure(chart: Chart, extent: tuple[int, int]) -> Markup:
    """Return a chart with heading, legend and caption."""
    signs = EMPTY.join(
        Markup("<li>{} {}</li>").format(_swatch(look), label) for look, label in legend(chart)
    )
    return Markup(
        '<figure><h3>{title}</h3><ul class="legend">{signs}</ul>{picture}'
        "<figcaption>{caption}</figcaption></figure>"
    ).format(title=chart.title, signs=signs, picture=svg(chart, extent), caption=chart.caption)


def _swatch(look: str) -> Markup:
    shapes = {
        "best": Markup('<path class="best" d="{}"/>').format(star(12, 6, 6)),
        "limit": Markup('<path class="limit" d="M0 6H24"/>'),
        "checkpoint": Markup('<path class="checkpoint" d="M12 2l-4.5 8h9z"/>'),
        "backoff": Markup('<path class="backoff" d="M0 6H24"/>'),
    }
    line = Markup('<path class="line {}" d="M0 6H24"/>').format(look)
    return Markup('<svg class="swatch" viewBox="0 0 24 12" aria-hidden="true">{}</svg>').format(
        shapes.get(look, line)
    )


def code(text: str, label: str) -> Markup:
    """Return a command to copy."""
    return Markup('<pre tabindex="0" role="region" aria-label="{}"><code>{}</code></pre>').format(
        label, text
    )


def moment(seconds: float, *, exact: bool = False) -> Markup:
    """Return local date and time, `exact`: with seconds."""
    local = time.localtime(seconds)
    text = _("{day} {month} {year}, {time}").format(
        day=local.tm_mday,
        month=translate(_MONTHS[local.tm_mon - 1]),
        year=local.tm_year,
        time=time.strftime("%H:%M:%S" if exact else "%H:%M", local),
    )
    iso = time.strftime("%Y-%m-%dT%H:%M:%S%z", local)
    return Markup('<time datetime="{}">{}</time>').format(iso, text)


def lines(text: str) -> Markup:
    """Return plain text as paragraphs with line breaks."""
    paragraphs = [part for part in text.split("\n\n") if part.strip()]
    return EMPTY.join(
        Markup("<p>{}</p>").format(Markup("<br>").join(map(escape, part.strip().split("\n"))))
        for part in paragraphs
    )

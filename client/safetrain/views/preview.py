"""Formats a preview as lines of text, with learned and cut pieces marked."""

from __future__ import annotations

from collections.abc import Iterator

import click

from safetrain.views.labels import sign
from safetrain_proto.v1.data_pb2 import PreviewPiece, PreviewResponse, PreviewSample
from safetrain_shared.i18n import format_text
from safetrain_shared.i18n import translate as _
from safetrain_shared.messages import say
from safetrain_shared.printable import printable
from safetrain_shared.wire import finding_from_wire

# For terminals without colour, and for readers who do not see it.
_LEARNED, _CUT = "⟦{}⟧", "✂{}✂"


def sample_lines(sample: PreviewSample, name: str) -> Iterator[str]:
    """Yield a heading, the sample with its pieces marked, and its problems."""
    text = _(
        "{name}, line {line:int}: {tokens:int} {tokens:|token|tokens}, {learned:int} of "
        "them learned"
    )
    args = {
        "name": name,
        "line": sample.line,
        "tokens": sample.tokens,
        "learned": sample.learned,
    }
    yield click.style(format_text(text, args), bold=True)
    if sample.pieces:
        yield "".join(map(_marked, sample.pieces))
    for message in sample.problems:
        finding = finding_from_wire(message)
        yield f"  {sign(finding.status)} {say(finding, fallback=message.text)}"
    yield ""


def lengths_line(preview: PreviewResponse, length: int) -> str:
    """Return the lengths of the counted samples, and how many `length` tokens would cut."""
    text = _(
        "{count:int} {count:|sample|samples} counted: median {median:int}, longest "
        "{longest:int} {longest:|token|tokens}."
    )
    args = {"count": preview.counted, "median": preview.median, "longest": preview.longest}
    text = format_text(text, args)
    if length:
        cut = _(
            "At {length:int} tokens {cut:int} would be cut, {lost:int} would lose "
            "{lost:|its|their} answer."
        )
        args = {"length": length, "cut": preview.cut, "lost": preview.lost}
        text += " " + format_text(cut, args)
    if preview.failed:
        failed = _(
            "{count:int} {count:|is no sample|are no samples}, or the chat template "
            "refuses {count:|it|them}."
        )
        text += " " + format_text(failed, {"count": preview.failed})
    return text


def _marked(piece: PreviewPiece) -> str:
    """Return a piece between its signs, in colour where there is colour."""
    text = printable(piece.text)
    if piece.cut:
        return click.style(_CUT.format(text), fg="red", dim=True)
    return click.style(_LEARNED.format(text), fg="green") if piece.learned else text

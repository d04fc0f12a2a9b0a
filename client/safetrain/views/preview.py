"""Formats a preview as lines of text, with learned and cut pieces marked."""

from __future__ import annotations

from collections.abc import Iterator

import click

from safetrain.views.labels import sign
from safetrain_proto.v1.data_pb2 import PreviewPiece, PreviewResponse, PreviewSample
from safetrain_shared.i18n import integer
from safetrain_shared.i18n import translate as _
from safetrain_shared.messages import say
from safetrain_shared.printable import printable
from safetrain_shared.wire import finding_from_wire

# For terminals without colour, and for readers who do not see it.
_LEARNED, _CUT = "⟦{}⟧", "✂{}✂"


def sample_lines(sample: PreviewSample, name: str) -> Iterator[str]:
    """Yield a heading, the sample with its pieces marked, and its problems."""
    text = _("{name}, line {line}: {tokens} tokens, {learned} of them learned")
    heading = text.format(
        name=name,
        line=integer(sample.line),
        tokens=integer(sample.tokens),
        learned=integer(sample.learned),
    )
    yield click.style(heading, bold=True)
    if sample.pieces:
        yield "".join(map(_marked, sample.pieces))
    for message in sample.problems:
        finding = finding_from_wire(message)
        yield f"  {sign(finding.status)} {say(finding, fallback=message.text)}"
    yield ""


def lengths_line(preview: PreviewResponse, length: int) -> str:
    """Return the lengths of the counted samples, and how many `length` tokens would cut."""
    text = _("{count} samples counted: median {median}, longest {longest} tokens.").format(
        count=integer(preview.counted),
        median=integer(preview.median),
        longest=integer(preview.longest),
    )
    if length:
        cut = _("At {length} tokens {cut} would be cut, {lost} would lose their answer.")
        text += " " + cut.format(
            length=integer(length), cut=integer(preview.cut), lost=integer(preview.lost)
        )
    if preview.failed:
        failed = _("{count} are no samples, or the chat template refuses them.")
        text += " " + failed.format(count=integer(preview.failed))
    return text


def _marked(piece: PreviewPiece) -> str:
    """Return a piece between its signs, in colour where there is colour."""
    text = printable(piece.text)
    if piece.cut:
        return click.style(_CUT.format(text), fg="red", dim=True)
    return click.style(_LEARNED.format(text), fg="green") if piece.learned else text

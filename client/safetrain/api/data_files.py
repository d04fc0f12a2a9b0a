"""What `Client.prepare` and `Client.preview` return: files that were made, samples as seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

import click

from safetrain.views.prepare import prepare_lines
from safetrain.views.preview import lengths_line, sample_lines
from safetrain_proto.v1 import data_pb2
from safetrain_shared.findings import Finding
from safetrain_shared.i18n import language, using
from safetrain_shared.wire import finding_from_wire


@dataclass
class Prepared:
    """Training files that were written. `str()` is the text that `safetrain prepare` prints.

    `folder`: pass it on, as in `submit(data=prepared.folder)`. `counts`: samples by file name.
    `dropped`: rows that were left out, by what was wrong. `problems`: each of them; `args` has its
    `path` and `line`. `columns`: by source, our names and the source's columns for them.
    """

    folder: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    problems: list[Finding] = field(default_factory=list)
    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    text: str = ""

    def __str__(self) -> str:
        return self.text


def prepared_of(events: Iterable[data_pb2.PrepareEvent], lang: str | None) -> Prepared:
    """Collect the events of one call into its result, with its text in `lang`."""
    found, lines = Prepared(), []
    for event in events:
        if event.HasField("progress"):
            continue
        if event.HasField("guess"):
            found.columns[event.guess.path] = dict(event.guess.columns)
        elif event.HasField("problem"):
            found.problems.append(finding_from_wire(event.problem))
        else:
            found.folder = event.prepared.output
            found.counts = dict(event.prepared.counts)
            found.dropped = dict(event.prepared.dropped)
        with using(lang or language()):
            lines += prepare_lines(event)
    found.text = click.unstyle("\n".join(lines))
    return found


@dataclass(frozen=True)
class Sample:
    """One sample as the model sees it. `pieces`: its text in runs, each with whether it is learned.

    `tokens`, `learned`: how many it has, and how many of them are learned.
    """

    line: int
    pieces: Sequence[tuple[str, bool]]
    tokens: int
    learned: int
    problems: Sequence[Finding]


@dataclass(frozen=True)
class Preview:
    """Samples as the model will see them. `str()` is the text that `safetrain preview` prints.

    `median`, `longest`: tokens of a sample, over the first `counted`; `cut`: of those, samples that
    the length would cut, `lost` that would lose their whole answer, `failed` that are no samples.
    """

    samples: Sequence[Sample]
    counted: int
    median: int
    longest: int
    cut: int
    lost: int
    failed: int
    text: str

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return "".join(f"<p>{_html(sample)}</p>" for sample in self.samples)


def preview_of(answer: data_pb2.PreviewResponse, length: int, lang: str | None) -> Preview:
    """Return the answer of a call; `length`: where samples would be cut, 0: nowhere."""
    with using(lang or language()):
        lines = [line for sample in answer.samples for line in sample_lines(sample, answer.path)]
        lines.append(lengths_line(answer, length))
    return Preview(
        samples=tuple(map(_sample, answer.samples)),
        counted=answer.counted,
        median=answer.median,
        longest=answer.longest,
        cut=answer.cut,
        lost=answer.lost,
        failed=answer.failed,
        text=click.unstyle("\n".join(lines)),
    )


def _sample(sample: data_pb2.PreviewSample) -> Sample:
    return Sample(
        line=sample.line,
        pieces=tuple((piece.text, piece.learned) for piece in sample.pieces),
        tokens=sample.tokens,
        learned=sample.learned,
        problems=tuple(map(finding_from_wire, sample.problems)),
    )


def _html(sample: Sample) -> str:
    """The sample's text as HTML, what is learned marked."""
    parts = (
        f"<mark>{escape(text)}</mark>" if learned else escape(text)
        for text, learned in sample.pieces
    )
    return "".join(parts).replace("\n", "<br>")

"""Reads machine and data facts from a job's `preflight_report.json`, for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safetrain_shared.codec import from_plain
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens per sample: the median, the ninetieth percentile, the maximum."""

    median: int
    ninetieth: int
    longest: int


@dataclass(frozen=True, slots=True)
class DataFile:
    """One training file; `size` in bytes, `lengths` None where no tokenizer was available.

    `preview`: samples as the model sees them, each as runs of text: is it learned?
    """

    path: str
    format: str
    samples: int
    size: int
    lengths: Lengths | None
    preview: tuple[tuple[tuple[str, bool], ...], ...] = ()


@dataclass(frozen=True, slots=True)
class PreflightFacts:
    """The findings of a preflight, each with its English sentence, and its data files."""

    findings: tuple[tuple[Finding, str], ...]
    files: tuple[DataFile, ...]
    time: str

    def of(self, *sections: str) -> list[tuple[Finding, str]]:
        """Return the findings of these sections."""
        return [pair for pair in self.findings if pair[0].section in sections]


def read_facts(report: Any, spec: JobSpec) -> PreflightFacts | None:
    """Return the facts of the report; None where it is of other files, or cannot be read."""
    try:
        own = report["spec"]
        if (own["train"], own["valid"], own["model"]) != (spec.train, spec.valid, spec.model):
            return None
        findings = tuple(
            (from_plain(finding, Finding), str(finding.get("text", "")))
            for finding in report["findings"]
        )
        return PreflightFacts(findings, _files(report["facts"]["data"] or {}), str(report["time"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _files(data: Mapping[str, Any]) -> tuple[DataFile, ...]:
    found = [data.get("train"), data.get("valid")]
    return tuple(
        DataFile(
            path=str(file["path"]),
            format=str(file["format"]),
            samples=int(file["samples"]),
            size=int(file["size"]),
            lengths=_lengths(file["lengths"]["tokens"]) if file.get("lengths") else None,
            preview=tuple(
                tuple((str(piece["text"]), bool(piece["learned"])) for piece in sample["pieces"])
                for sample in file.get("preview", ())
            ),
        )
        for file in found
        if file
    )


def _lengths(counts: Sequence[tuple[int, int]]) -> Lengths | None:
    """Return the quantiles. `counts`: (tokens, samples) pairs."""
    ordered = sorted((int(tokens), int(count)) for tokens, count in counts)
    total = sum(count for _tokens, count in ordered)
    if not total:
        return None
    return Lengths(_quantile(ordered, total, 0.5), _quantile(ordered, total, 0.9), ordered[-1][0])


def _quantile(ordered: Sequence[tuple[int, int]], total: int, share: float) -> int:
    seen = 0
    for tokens, count in ordered:
        seen += count
        if seen >= share * total:
            return tokens
    return ordered[-1][0]

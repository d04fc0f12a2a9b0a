"""One pass over one training file: its problems by line, repeats, leaks, a sample of its lines.

Problems come out as they are found. Memory stays flat whatever the file's size: see
`duplicate_index` and `reservoir_sample` for what is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from safetrain_shared.errors import ArgValue
from safetrain_shared.findings import Finding, Status
from safetraind.worker.data import schema
from safetraind.worker.data.duplicate_index import Leakage, Repeats
from safetraind.worker.data.json_document import document_shape
from safetraind.worker.data.line_reader import MAX_LINE_BYTES, Corpus, Line
from safetraind.worker.data.reservoir_sample import ReservoirSample
from safetraind.worker.data.text_normalisation import key_of, text_of, units_of, words_of
from safetraind.worker_messages.inspect_messages import FileProgress

# Beyond this many of one kind, problems are counted and no longer listed.
MAX_LISTED = 1000
_LINES_BETWEEN_PROGRESS = 4096


@dataclass(slots=True)
class Scan:
    """The content of one file. Fill it by iterating over `run` to its end.

    `leakage`: an index of other files, in which the samples are looked up. `indexing`: the index
    into which they are put, for files that are scanned later. `name`: the file's name in findings.
    `unlearned`: the number of answers whose message excludes them from learning.
    """

    path: str
    leakage: Leakage | None = None
    indexing: Leakage | None = None
    compare: bool = True
    name: str = ""
    format: str = ""
    lines: int = 0
    samples: int = 0
    size: int = 0
    errors: int = 0
    warnings: int = 0
    unlearned: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    draw: ReservoirSample = field(default_factory=ReservoirSample)
    _repeats: Repeats = field(default_factory=Repeats)

    def run(self) -> Iterator[Finding | FileProgress]:
        """Read the file. Raises as `Corpus` does where it cannot be opened."""
        if self.indexing is not None:
            self.indexing.begin(self.name or Path(self.path).name)
        with Corpus(self.path) as corpus:
            self.size = corpus.size
            if shape := document_shape(corpus.head()):
                self.lines = 1
                args = {"filter": ".[]" if shape == "list" else "."}
                yield from self._note("data.json_document", 1, args=args)
                return
            for line in corpus:
                self.lines = line.number
                if line.number % _LINES_BETWEEN_PROGRESS == 0:
                    yield FileProgress(self.path, corpus.done, corpus.size)
                if found := self._take(line):
                    yield from found
            yield from self._close(corpus)
        for number, first in self._repeats:
            yield from self._note("data.duplicate", number, Status.WARNING, {"first": first})
        yield FileProgress(self.path, self.size, self.size)

    def _take(self, line: Line) -> list[Finding]:
        """Return the findings of one line. Good lines, which are nearly all, take the shortest
        path.
        """
        content = line.content
        try:
            sample = schema.parse(content)
            form = schema.form_of(sample)
        except schema.Unusable as error:
            return self._unusable(line, error.problem)
        plain = form == "chat" and schema.is_plain(sample["messages"])
        problems = [] if plain else schema.judge(sample, form)
        if self.format != form and not problems:
            problems = self._note_form(form)
        if doubled := schema.duplicate_key(content, sample, form):
            problems = [*problems, _doubled(doubled)]
        found: list[Finding] = []
        if problems:
            for problem in problems:
                found += self._note(problem.code, line.number, problem.status, problem.args)
            if any(problem.status is Status.FAILED for problem in problems):
                return found
        self.samples += 1
        if not plain and form in ("chat", "tools"):
            self.unlearned += schema.unlearned(sample["messages"])
        self.draw.offer(line, odd=not plain and form in ("chat", "tools"))
        if self.compare:
            found += self._compare(sample, form, line.number)
        return found

    def _unusable(self, line: Line, problem: schema.Problem) -> list[Finding]:
        if line.too_long:
            args: dict[str, ArgValue] = {"bytes": line.too_long, "limit": MAX_LINE_BYTES}
            return self._note("data.line_too_long", line.number, args=args)
        if not line.content.strip():
            return self._note("data.blank_line", line.number, Status.WARNING)
        return self._note(problem.code, line.number, args=problem.args)

    def _compare(self, sample: schema.Sample, form: str, number: int) -> list[Finding]:
        text = text_of(sample, form)
        words = words_of(text)
        key = key_of(words)
        self._repeats.add(key, number)
        if self.indexing is None and self.leakage is None:
            return []
        units = units_of(sample, form, words, len(text))
        if self.indexing is not None:
            self.indexing.add(key, number, units)
        leak = self.leakage.find(key, units) if self.leakage is not None else None
        if leak is None:
            return []
        args: dict[str, ArgValue] = {"other": leak.line, "file": leak.file}
        code = "data.leak" if leak.equal else "data.near_leak"
        return self._note(code, number, Status.WARNING, args)

    def _note_form(self, form: str) -> list[schema.Problem]:
        """Return the problem of a sample whose format differs from the first one's. Chats with and
        without tools may mix.
        """
        if not self.format or {self.format, form} == {"chat", "tools"}:
            self.format = "tools" if self.format and form != self.format else form
            return []
        args = {"found": form, "format": self.format}
        return [schema.Problem("data.mixed_formats", args=args)]

    def _close(self, corpus: Corpus) -> Iterator[Finding]:
        if corpus.had_bom:
            yield from self._note("data.bom", 1, Status.WARNING)
        if corpus.grew:
            yield from self._note("data.changing", self.lines, Status.WARNING)
        if self.unlearned:
            yield from self._note("data.unlearned", 0, Status.INFO, {"count": self.unlearned})
        if not self.samples and not self.errors:
            yield from self._note("data.no_samples", 0)
        index = self.indexing
        if index is not None and index.indexed_near < self.samples:
            args = {"samples": index.indexed, "near": index.indexed_near}
            yield from self._note("data.partly_compared", 0, Status.INFO, args)

    def _note(
        self,
        code: str,
        number: int,
        status: Status = Status.FAILED,
        args: Mapping[str, ArgValue] = MappingProxyType({}),
    ) -> list[Finding]:
        self.counts[code] += 1
        self.errors += status is Status.FAILED
        self.warnings += status is Status.WARNING
        if self.counts[code] <= MAX_LISTED:
            where: dict[str, ArgValue] = {"path": self.path, "line": number, **args}
            return [Finding(code, status, args=where, section="data")]
        if self.counts[code] == MAX_LISTED + 1:
            where = {"path": self.path, "line": number, "kind": code, "limit": MAX_LISTED}
            return [Finding("data.not_listed", Status.INFO, args=where, section="data")]
        return []


def _doubled(key: str) -> schema.Problem:
    return schema.Problem("data.duplicate_key", Status.WARNING, {"key": key})

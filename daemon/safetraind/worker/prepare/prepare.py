"""The worker role `prepare`: from the files people have to train, valid and questions files.

`worker_messages.prepare_messages` has its request, its lines and its result. How each source is
read is told before anything is written.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import orjson

from safetrain_shared.errors import Conflict, InvalidInput
from safetrain_shared.findings import Finding, Status
from safetraind.storage import documents
from safetraind.storage.durable import write_json
from safetraind.storage.manifest import sha256
from safetraind.worker.data.duplicate_index import Repeats
from safetraind.worker.data.schema import form_of as training_form
from safetraind.worker.data.schema import judge
from safetraind.worker.data.text_normalisation import key_of, text_of, words_of
from safetraind.worker.exchange import Tell, answer, read_request
from safetraind.worker.prepare.read_rows import Row, Source
from safetraind.worker.prepare.sample_forms import Form, Sample, Unmapped, form_of
from safetraind.worker.prepare.split import (
    QUESTIONS,
    TRAIN,
    VALID,
    drawn_side,
    keep_groups_together,
)
from safetraind.worker_messages.prepare_messages import (
    PREPARE,
    Guess,
    Prepared,
    PrepareLine,
    PrepareRequest,
    RowProgress,
    SourceFile,
)

MANIFEST = "prepared.json"
FILES = {TRAIN: "train.jsonl", VALID: "valid.jsonl", QUESTIONS: "questions.jsonl"}
_SHOWN = 2  # samples of each source
_PROGRESS_ROWS = 5000
_MOST_PROBLEMS = 20  # of one kind are named; the rest is counted


def main(arguments: list[str]) -> int:
    """Prepare as the run folder asks. What is wrong with the files is a result, not a failure."""
    request = read_request(arguments[0], PREPARE.name, PrepareRequest)
    answer(arguments[0], lambda tell: Preparation(request, tell).run(), output=request.output)
    return 0


class Preparation:
    """One preparation: the samples lie in a temporary file, of which memory holds the offsets."""

    def __init__(self, request: PrepareRequest, tell: Tell) -> None:
        self._request = request
        self._tell = tell
        self._output = Path(request.output)
        self._offsets = array("q")
        self._forms: list[str] = []
        self._form_of = array("B")
        self._dropped: Counter[str] = Counter()

    def run(self) -> Prepared:
        """Do everything and return what is in `prepared.json`. Raises SafetrainError."""
        self._refuse_foreign()
        sources = [Source(path) for path in self._request.files]
        forms = [self._guess(source) for source in sources]
        self._output.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=self._output) as self._samples:
            for source, form in zip(sources, forms, strict=True):
                self._gather(source, form)
            sides = self._sides()
            counts = self._write_files(sides)
        prepared = Prepared(
            sources=tuple(SourceFile(str(s.path), _digest(s.path)) for s in sources),
            seed=self._request.seed,
            counts=counts,
            dropped=dict(sorted(self._dropped.items())),
        )
        write_json(self._output / MANIFEST, documents.to_json(prepared))
        return prepared

    def _refuse_foreign(self) -> None:
        """Only an empty folder is written to, or one that was prepared before."""
        if not self._output.exists() or (self._output / MANIFEST).is_file():
            return
        if not self._output.is_dir() or any(self._output.iterdir()):
            raise Conflict("prepare.output_taken", path=str(self._output))

    def _guess(self, source: Source) -> Form:
        """Return how the source is read, and tell it with two samples.

        Raises InvalidInput where no form fits.
        """
        mapping = self._request.columns
        rows = list(islice(source.rows(), 50))
        form = next((f for row in rows if (f := form_of(row.value, mapping))), None)
        if form is None:
            keys = next((", ".join(r.value) for r in rows if isinstance(r.value, dict)), "-")
            raise InvalidInput("prepare.no_columns", path=str(source.path), keys=keys[:200])
        shown = []
        for row in rows:
            with contextlib.suppress(Unmapped):
                shown.append(form.sample(row.value))
        if not shown and rows:
            raise InvalidInput("prepare.nothing_fits", path=str(source.path), form=form.name)
        guess = Guess(
            path=str(source.path),
            form=form.name,
            columns=dict(form.columns),
            encoding=source.encoding,
            delimiter=source.delimiter,
            samples=tuple(shown[:_SHOWN]),
        )
        self._tell(PrepareLine(guess=guess))
        return form

    def _gather(self, source: Source, form: Form) -> None:
        """The samples of a source behind those before it; what is none is named and dropped."""
        for count, row in enumerate(source.rows(), 1):
            if count % _PROGRESS_ROWS == 0:
                self._tell(PrepareLine(progress=RowProgress(str(source.path), count)))
            try:
                sample = form.sample(row.value)
            except Unmapped as missing:
                self._drop(source, row, "prepare.row_dropped", missing=missing.reason)
                continue
            name = training_form(sample)
            problem = next((p for p in judge(sample, name) if p.status is Status.FAILED), None)
            if problem is None:
                self._append(sample, name)
            else:
                self._drop(source, row, problem.code, **problem.args)

    def _drop(self, source: Source, row: Row, code: str, **args: Any) -> None:
        self._dropped[code] += 1
        if self._dropped[code] <= _MOST_PROBLEMS:
            args = {"path": str(source.path), "line": row.place, **args}
            self._tell(PrepareLine(problem=Finding(code, Status.WARNING, args=args)))

    def _append(self, sample: Sample, form: str) -> None:
        if form not in self._forms:
            self._forms.append(form)
        self._form_of.append(self._forms.index(form))
        self._offsets.append(self._samples.tell())
        self._samples.write(orjson.dumps(sample) + b"\n")

    def _read(self, number: int) -> tuple[Sample, str]:
        self._samples.seek(self._offsets[number])
        return orjson.loads(self._samples.readline()), self._forms[self._form_of[number]]

    def _sides(self) -> bytearray:
        """A side for each sample; 255 for one that repeats an earlier one."""
        sides = bytearray([TRAIN]) * len(self._offsets)
        repeats = Repeats()
        shares = self._request.valid, self._request.questions
        for number in range(len(sides)):
            sample, form = self._read(number)
            repeats.add(key_of(words_of(text_of(sample, form))), number)
            sides[number] = drawn_side(sample, form, self._request.seed, shares)
        for number, _first in repeats:
            sides[number] = _REPEATED
            self._dropped["prepare.repeated"] += 1
        kept = [number for number in range(len(sides)) if sides[number] != _REPEATED]
        keep_groups_together(sides, self._read, kept)
        if kept and all(sides[number] != TRAIN for number in kept):
            raise InvalidInput("prepare.all_alike", path=str(self._output))
        return sides

    def _write_files(self, sides: bytearray) -> dict[str, int]:
        """Write the files, each atomically; one without a sample is removed."""
        counts = {}
        for side, name in FILES.items():
            numbers = (number for number in range(len(sides)) if sides[number] == side)
            counts[name] = _write_whole(self._output / name, self._contents(side, numbers))
        return counts

    def _contents(self, side: int, numbers: Iterator[int]) -> Iterator[bytes]:
        for number in numbers:
            sample, form = self._read(number)
            if side == QUESTIONS:
                if form == "text":
                    continue  # it asks nothing
                sample = _question(sample)
            yield orjson.dumps(sample) + b"\n"

    _samples: IO[bytes]


_REPEATED = 255


def _question(sample: Sample) -> Sample:
    """A sample as an entry of a question set: what stands before its last answer, and that."""
    messages = sample["messages"]
    last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
    return {
        "messages": messages[:last],
        "answers": [messages[last]["content"]],
        "match": "similarity",
    }


def _write_whole(path: Path, lines: Iterator[bytes]) -> int:
    count, partial = 0, path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            for line in lines:
                file.write(line)
                count += 1
            file.flush()
            os.fsync(file.fileno())
        if count:
            partial.replace(path)
        else:
            path.unlink(missing_ok=True)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _digest(path: Path) -> str:
    return sha256(path) if path.is_file() else ""

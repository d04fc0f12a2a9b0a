"""The worker role `prepare`: makes train, valid and questions files from people's own files.

`worker_messages.prepare_messages` has its request, its lines and its result. The form of each
source is reported before anything is written.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from safetrain_shared.errors import Conflict, InvalidInput
from safetrain_shared.findings import Finding, Status
from safetrain_shared.paths import PREPARED
from safetraind.storage import documents
from safetraind.storage.durable import write_json
from safetraind.storage.folder_lock import claimed
from safetraind.storage.manifest import sha256
from safetraind.worker.data.duplicate_index import Repeats
from safetraind.worker.data.schema import form_of as training_form
from safetraind.worker.data.schema import judge
from safetraind.worker.data.text_normalisation import key_of, text_of, units_of, words_of
from safetraind.worker.exchange import Tell, answer, read_request
from safetraind.worker.prepare.hub_data import PREFIX, download
from safetraind.worker.prepare.read_rows import Row, Source
from safetraind.worker.prepare.sample_forms import Form, Sample, Unmapped, form_of
from safetraind.worker.prepare.sample_store import SampleStore
from safetraind.worker.prepare.split import (
    QUESTIONS,
    REPEATED,
    TRAIN,
    VALID,
    keep_groups_together,
    place_of,
    side_at,
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

FILES = {TRAIN: "train.jsonl", VALID: "valid.jsonl", QUESTIONS: "questions.jsonl"}
_SHOWN = 2  # samples of each source
_PROGRESS_ROWS = 5000
_MOST_PROBLEMS = 20  # of one kind are named; the rest is counted


def main(arguments: list[str]) -> int:
    """Prepare the files that the request in the run folder `arguments[0]` names. Return 0: problems
    of the files are a result.
    """
    request = read_request(arguments[0], PREPARE.name, PrepareRequest)
    answer(arguments[0], lambda tell: Preparation(request, tell).run(), output=request.output)
    return 0


class Preparation:
    """One preparation. Memory holds only the side and the number of copies of each sample."""

    def __init__(self, request: PrepareRequest, tell: Tell) -> None:
        self._request = request
        self._tell = tell
        self._output = Path(request.output)
        self._shares = request.valid, request.questions
        self._sides = bytearray()
        self._copies = bytearray()
        self._lowest = 2.0, 0  # the place and the number of the sample that is validated first
        self._repeats = Repeats()
        self._dropped: Counter[str] = Counter()

    def run(self) -> Prepared:
        """Prepare all files. Return the content of `prepared.json`. Raises SafetrainError."""
        self._refuse_foreign()
        sources, weights = self._sources()
        forms = [self._guess(source) for source in sources]
        with claimed(self._output):
            return self._written(sources, weights, forms)

    def _written(self, sources: list[Source], weights: list[float], forms: list[Form]) -> Prepared:
        with SampleStore(self._output) as self._store:
            for source, form, weight in zip(sources, forms, weights, strict=True):
                self._gather(source, form, weight)
            self._divide()
            counts = self._write_files()
        prepared = Prepared(
            sources=tuple(
                SourceFile(source.name, _digest(source.path), weight)
                for source, weight in zip(sources, weights, strict=True)
            ),
            shares={"valid": self._shares[0], "questions": self._shares[1]},
            map=dict(self._request.columns),
            seed=self._request.seed,
            counts=counts,
            files={n: _digest(self._output / n) for n, count in counts.items() if count},
            dropped=dict(sorted(self._dropped.items())),
        )
        write_json(self._output / PREPARED, documents.to_json(prepared))
        return prepared

    def _sources(self) -> tuple[list[Source], list[float]]:
        """Return the files, with data sets of the hub downloaded, and the weight of each."""
        sources, weights = list[Source](), list[float]()
        files = self._request.files
        given = self._request.weights or (1.0,) * len(files)
        for name, weight in zip(files, given, strict=True):
            if name.startswith(PREFIX):
                self._tell(PrepareLine(progress=RowProgress(name, 0)))
                found = [Source(str(path), known_as) for known_as, path in download(name)]
            else:
                found = [Source(name)]
            sources += found
            weights += [weight] * len(found)
        return sources, weights

    def _refuse_foreign(self) -> None:
        """Raise Conflict unless the folder is empty or was prepared before."""
        if not self._output.exists() or (self._output / PREPARED).is_file():
            return
        if not self._output.is_dir() or any(self._output.iterdir()):
            raise Conflict("prepare.output_taken", path=str(self._output))

    def _guess(self, source: Source) -> Form:
        """Return the form of the source, after reporting it with two samples.

        Raises InvalidInput where no form fits.
        """
        mapping = self._request.columns
        rows = list(islice(source.rows(), 50))
        form = next((f for row in rows if (f := form_of(row.value, mapping))), None)
        if not rows:
            raise InvalidInput("prepare.empty", path=source.name)
        if form is None:
            keys = next((", ".join(r.value) for r in rows if isinstance(r.value, dict)), "-")
            raise InvalidInput("prepare.no_columns", path=source.name, keys=keys[:200])
        shown = []
        for row in rows:
            with contextlib.suppress(Unmapped):
                shown.append(form.sample(row.value))
        if not shown:
            raise InvalidInput("prepare.nothing_fits", path=source.name, form=form.name)
        guess = Guess(
            path=source.name,
            form=form.name,
            columns=dict(form.columns),
            encoding=source.encoding,
            delimiter=source.delimiter,
            samples=tuple(shown[:_SHOWN]),
        )
        self._tell(PrepareLine(guess=guess))
        return form

    def _gather(self, source: Source, form: Form, weight: float) -> None:
        """Append the samples of a source. Rows that are no sample are reported and dropped."""
        for count, row in enumerate(source.rows(), 1):
            if count % _PROGRESS_ROWS == 0:
                self._tell(PrepareLine(progress=RowProgress(source.name, count)))
            try:
                sample = self._sample(row.value, form)
            except Unmapped as missing:
                self._drop(source, row, "prepare.row_dropped", missing=missing.reason)
                continue
            name = training_form(sample)
            problem = next((p for p in judge(sample, name) if p.status is Status.FAILED), None)
            if problem is None:
                self._add(sample, name, weight)
            else:
                self._drop(source, row, problem.code, **problem.args)

    def _sample(self, record: Any, form: Form) -> Sample:
        """Return a record as a sample: in the source's form, else in its own form, if it is a chat
        too.

        Raises Unmapped, of the source's form.
        """
        try:
            return form.sample(record)
        except Unmapped:
            other = form_of(record, {})
            if self._request.columns or other in (None, form) or "text" in (form.name, other.name):
                raise
            with contextlib.suppress(Unmapped):
                return other.sample(record)
            raise

    def _drop(self, source: Source, row: Row, code: str, **args: Any) -> None:
        self._dropped[code] += 1
        if self._dropped[code] <= _MOST_PROBLEMS:
            args = {"path": source.name, "line": row.place, **args}
            self._tell(PrepareLine(problem=Finding(code, Status.WARNING, args=args)))

    def _add(self, sample: Sample, form: str, weight: float) -> None:
        number, text = len(self._store), text_of(sample, form)
        words = words_of(text)
        key = key_of(words)
        self._store.add(orjson.dumps(sample), key, units_of(sample, form, words, len(text)))
        self._repeats.add(key, number)
        place = place_of(words, self._request.seed)
        self._lowest = min(self._lowest, (place, number))
        self._sides.append(side_at(place, self._shares))
        # The last digits of the place, so that a side and a copy are drawn apart.
        self._copies.append(_copies(place * 2**20 % 1, weight))

    def _divide(self) -> None:
        """Decide the side of each sample."""
        for number, _first in self._repeats:
            self._sides[number] = REPEATED
            self._dropped["prepare.repeated"] += 1
        if self._shares[0] and VALID not in self._sides and len(self._sides) > 1:
            self._sides[self._lowest[1]] = VALID  # few samples: one at least validates
        keep_groups_together(self._sides, self._store)
        if self._sides and TRAIN not in self._sides:
            raise InvalidInput("prepare.all_alike", path=str(self._output))
        for number, count in enumerate(self._copies):
            if not count and self._sides[number] == TRAIN:
                self._dropped["prepare.weighted_out"] += 1

    def _write_files(self) -> dict[str, int]:
        """Write the files, each atomically; one without a sample is removed."""
        contents = {
            TRAIN: self._training_lines(),
            VALID: self._lines(VALID),
            QUESTIONS: self._question_lines(),
        }
        return {n: _write_whole(self._output / n, contents[side]) for side, n in FILES.items()}

    def _lines(self, side: int) -> Iterator[bytes]:
        return (line for _number, line in self._store.lines(lambda n: self._sides[n] == side))

    def _training_lines(self) -> Iterator[bytes]:
        """Yield the training lines, with copies of one sample far apart: first every sample once,
        then again.
        """
        for copy in range(max(self._copies, default=0)):
            for number, line in self._store.lines(lambda n: self._sides[n] == TRAIN):
                if self._copies[number] > copy:
                    yield line

    def _question_lines(self) -> Iterator[bytes]:
        for line in self._lines(QUESTIONS):
            sample = orjson.loads(line)
            if "messages" in sample:  # a text asks nothing
                yield orjson.dumps(_question(sample)) + b"\n"

    _store: SampleStore


def _copies(place: float, weight: float) -> int:
    """Return the number of copies of a training sample of a file of `weight`: the whole part of it,
    and one more where the sample's `place` (0 to 1) is below the fraction.
    """
    whole = int(weight)
    return whole + (place < weight - whole)


def _question(sample: Sample) -> Sample:
    """Return a sample as an entry of a question set: the turns before its last answer, and that
    answer.
    """
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

"""The number of tokens of a file's samples, with the model's own tokenizer and chat template."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from safetraind.worker.data.answer_kind import Answers
from safetraind.worker.data.encode_chat import Encoder, Refused, TooSlow
from safetraind.worker.data.line_reader import Line
from safetraind.worker.data.reservoir_sample import ReservoirSample
from safetraind.worker.data.schema import Problem, form_of, parse
from safetraind.worker_messages.inspect_messages import NEVER, Lengths, SampleProblem

TOPS = 128
_BETWEEN_PROGRESS = 64


@dataclass(slots=True)
class LengthCounts:
    """Samples by their number of tokens, and by the place of the first token that is learned.

    `tops`: the longest samples' tokens, and how many of those are learned. `scale`: samples in the
    file for each one counted; 1.0 means that the counts are exact. `longest`, `failed` and `line`,
    the first that failed, speak of all lines that were looked at. A sample whose first learned
    token lies at or beyond a sequence length would lose its whole answer there. `problems`: by
    code, how samples are rendered otherwise than they stand in the file: the first, its line, and
    how many. `is_cut_off`: the template was still at work on a sample when its time was over.
    `said`: what the answers of those counted are like.
    """

    tokens: Counter[int] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)
    longest: int = 0
    tops: list[tuple[int, int]] = field(default_factory=list)
    scale: float = 1.0
    failed: int = 0
    line: int = 0
    reason: str = ""
    is_cut_off: bool = False
    problems: dict[str, tuple[Problem, int, int]] = field(default_factory=dict)
    said: Answers = field(default_factory=Answers)

    def note(self, problem: Problem, line: int) -> None:
        """Count a problem of one sample. The first of its kind is kept."""
        kept, first, count = self.problems.get(problem.code, (problem, line, 0))
        if line < first:
            kept, first = problem, line
        self.problems[problem.code] = kept, first, count + 1

    def message(self) -> Lengths:
        """Return the lengths as the worker's result holds them, with counts as pairs."""
        return Lengths(
            tokens=tuple(sorted(self.tokens.items())),
            answers=tuple(sorted(self.answers.items())),
            longest=self.longest,
            tops=tuple(sorted(self.tops, reverse=True)),
            scale=self.scale,
            failed=self.failed,
            line=self.line,
            reason=self.reason,
            distinct=len(self.said.seen),
            structured=self.said.structured,
            problems=tuple(
                SampleProblem(problem.code, problem.status, dict(problem.args), line, count)
                for problem, line, count in self.problems.values()
            ),
        )


def count(
    draw: ReservoirSample, encoder: Encoder, progress: Callable[[], None] = lambda: None
) -> LengthCounts:
    """Return the lengths of the lines in `draw`. `progress` is called now and then.

    A sample that the template refuses is noted. A template that takes too long for a sample ends
    the count.
    """
    lengths, drawn = LengthCounts(), set()
    try:
        for number, line in enumerate(draw):
            drawn.add(line.number)
            if number % _BETWEEN_PROGRESS == 0:
                progress()
            if measured := _measured(line, encoder, lengths):
                lengths.said.note(parse(line.content))
                lengths.tokens[measured[0]] += 1
                lengths.answers[measured[1]] += 1
        for line in {line.number: line for line in (*draw.longest(), *draw.odd())}.values():
            if line.number not in drawn:
                _measured(line, encoder, lengths)
    except TooSlow as error:
        lengths.reason, lengths.is_cut_off = str(error), True
    lengths.scale = draw.seen / len(drawn) if drawn else 1.0
    return lengths


def _measured(line: Line, encoder: Encoder, lengths: LengthCounts) -> tuple[int, int] | None:
    sample = parse(line.content)
    try:
        encoded = encoder.encode(line.number, sample, form_of(sample))
    except Refused as error:
        lengths.failed += 1
        if not lengths.line or line.number < lengths.line:
            lengths.line, lengths.reason = line.number, str(error)
        if isinstance(error, TooSlow):
            lengths.line = line.number
            raise
        return None
    for problem in encoded.problems:
        lengths.note(problem, line.number)
    length, learned = len(encoded.tokens), sum(encoded.learned[1:])
    lengths.longest = max(lengths.longest, length)
    keep = heapq.heappush if len(lengths.tops) < TOPS else heapq.heappushpop
    keep(lengths.tops, (length, learned))
    return length, _first(encoded.learned)


def _first(learned: Iterable[bool]) -> int:
    """Return the place of the first learned token that can be predicted. The very first token
    cannot.
    """
    places = (place for place, is_learned in enumerate(learned) if is_learned and place)
    return next(places, NEVER)

"""Gathers what suggesting models needs: the machine, rough lengths of the data, a known speed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetrain_shared.errors import InvalidInput, NotFound
from safetrain_shared.jobs import JobSpec
from safetrain_shared.paths import Home
from safetraind.models.suggested import SUGGESTED
from safetraind.planner.budget import available, budget_for
from safetraind.planner.degree import Degree
from safetraind.planner.facts import Facts
from safetraind.planner.measurement_cache import all_known
from safetraind.planner.option import Question
from safetraind.planner.suggest import Speed, Suggestion, suggest
from safetraind.preflight.gather_facts import gather_facts
from safetraind.worker_messages.inspect_messages import Lengths

# A token is at least so many bytes of a JSON line: about 3 in Portuguese, 4 in English, and the
# line's markup is counted too. So lengths come out too high rather than too low.
BYTES_A_TOKEN = 3
_USUAL_LENGTH, _USUAL_SAMPLES = 512, 1000  # where no data is named
_WIDTH = 16  # lengths are counted in steps of so many tokens
_TOPS = 64


@dataclass(frozen=True, slots=True)
class Suggestions:
    """The models, and the facts they were judged by.

    `room`: bytes that arrays can have. `speed`: None where nothing was trained or measured on this
    machine.
    """

    models: list[Suggestion]
    room: int
    samples: int
    longest: int
    speed: Speed | None


def suggestions(home: Home, train: str = "", memory_budget: int = 0) -> Suggestions:
    """Judge the table of models for this machine. It takes as long as reading the file `train`
    once.

    Raises NotFound where the file does not exist, InvalidInput where it cannot be read or is empty.
    """
    lengths = rough_lengths(Path(train)) if train else usual_lengths()
    spec = JobSpec("", train, "", str(home.root), memory_budget=memory_budget)
    return judged(gather_facts(spec, home, None), spec, lengths, known_speed(home))


def judged(facts: Facts, spec: JobSpec, lengths: Lengths, speed: Speed | None) -> Suggestions:
    """Return the table, judged by gathered facts."""
    budget = budget_for(spec, facts)
    question = Question(
        spec=spec,
        shape=SUGGESTED[0].shape,
        quantized=True,
        model_path="",
        lengths=lengths,
        samples=lengths.counted,
        text_only=False,
        available=available(spec, facts),
        budget=budget,
        device="metal" if facts.host.is_mac else "cpu",
    )
    room = budget.room(Degree.ESTIMATED)
    return Suggestions(suggest(question, speed), room, lengths.counted, lengths.longest, speed)


def usual_lengths() -> Lengths:
    """Return the lengths assumed where no data is named: 1,000 samples of 512 tokens."""
    return _lengths(Counter({_USUAL_LENGTH: _USUAL_SAMPLES}))


def rough_lengths(file: Path) -> Lengths:
    """Return the samples of a JSON lines file by length, from the bytes of its lines.

    Raises NotFound where it does not exist, InvalidInput where it cannot be read or is empty.
    """
    counts: Counter[int] = Counter()
    try:
        with file.open("rb") as lines:
            counts.update(_tokens(line) for line in lines if line.strip())
    except FileNotFoundError as error:
        raise NotFound("path.missing", path=str(file)) from error
    except OSError as error:
        raise InvalidInput("path.unreadable", path=str(file), reason=error.strerror) from error
    if not counts:
        raise InvalidInput("data.no_samples", path=str(file))
    return _lengths(counts)


def _tokens(line: bytes) -> int:
    return _WIDTH * -(-len(line) // (_WIDTH * BYTES_A_TOKEN))


def _lengths(counts: Counter[int]) -> Lengths:
    """Return `Lengths` of samples counted by tokens. Half of each sample is taken to be its
    answer.
    """
    pairs = sorted(counts.items())
    tops = [(n, n // 2) for n, count in reversed(pairs) for _ in range(min(count, _TOPS))][:_TOPS]
    return Lengths(
        tokens=tuple(pairs),
        answers=tuple((tokens // 2, count) for tokens, count in pairs),
        longest=pairs[-1][0],
        tops=tuple(tops),
    )


def known_speed(home: Home) -> Speed | None:
    """Return the fastest setup of the last measured model on this machine; None without one."""
    newest = max(_measured(home), key=lambda found: found[0], default=None)
    return newest[1] if newest else None


def _measured(home: Home) -> Iterator[tuple[float, Speed]]:
    """Yield the time of measuring and the speed of each model."""
    for known in all_known(home.learned):
        timed = [measure for measure in known.found.measures if measure.tokens_per_second]
        if known.shape is not None and timed:
            best = max(timed, key=lambda measure: measure.tokens_per_second)
            speed = Speed(known.model, known.shape, best.settings, best.tokens_per_second)
            yield known.time, speed

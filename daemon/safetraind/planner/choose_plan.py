"""Finds the fastest settings that fit. Pure: measures go in, a plan or a refusal comes out."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import Plan
from safetraind.planner.candidates import (
    candidates,
    length_bucket,
    lengths,
    starting_settings,
)
from safetraind.planner.degree import Degree
from safetraind.planner.judge import Judge
from safetraind.planner.option import Option, Question
from safetraind.planner.plan_limits import frozen
from safetraind.planner.refusal import refuse
from safetraind.planner.ways import same_work
from safetraind.worker_messages.probe_messages import Measure


def plan(question: Question, measures: Sequence[Measure] = ()) -> Plan | Finding:
    """Return the fastest plan that fits, or a blocking finding with the smallest change that
    would.
    """
    judged = options(question, measures)
    fitting = [option for option in judged if fits(question, option)]
    if not fitting:
        correction = judge(question, measures).correction
        return refuse(question, smallest(question, measures), correction)
    surest = max(option.degree for option in fitting)
    best = min((o for o in fitting if o.degree is surest), key=rank(question))
    too_large = [o for o in judged if o.peak <= _room(question, o) and not fits(question, o)]
    return frozen(
        question,
        best,
        predicted=_predicted(question, best, measures),
        bucket=bucket_of(question),
        held_by_buffer=any(rank(question)(option) < rank(question)(best) for option in too_large),
    )


def options(question: Question, measures: Sequence[Measure] = ()) -> list[Option]:
    """Return the options, the longest sequences first and among those the fastest first.

    Shorter sequences come in only where no longer ones fit.
    """
    settings, bucket = starting_settings(question), bucket_of(question)
    by_measures = judge(question, measures)
    found: list[Option] = []
    for length in lengths(question, settings):
        ways = candidates(question, settings, length, bucket)
        judged = _timed([by_measures.option(candidate) for candidate in ways])
        found += sorted(judged, key=rank(question))
        if any(fits(question, option) for option in judged):
            break
    return found


def smallest(question: Question, measures: Sequence[Measure] = ()) -> Option:
    """Return the way to train that takes the least memory, whether it fits or not."""
    settings, bucket = starting_settings(question), bucket_of(question)
    length = lengths(question, settings)[-1]
    by_measures = judge(question, measures)
    ways = candidates(question, settings, length, bucket)
    return min((by_measures.option(way) for way in ways), key=lambda option: option.peak)


def fits(question: Question, option: Option) -> bool:
    """Return whether the option's peak has room, and each of its arrays a buffer."""
    largest = question.largest_buffer
    return option.peak <= _room(question, option) and not 0 < largest < option.largest


def judge(question: Question, measures: Sequence[Measure]) -> Judge:
    """Return the judge of the options of a question."""
    return Judge(question, measures, bucket_of(question))


def rank(question: Question) -> Callable[[Option], tuple[float, ...]]:
    """Return the sort key of options, the best first: those that keep the effective batch, then the
    fastest, then those that need the least memory.
    """
    kept = starting_settings(question).effective_batch

    def place(option: Option) -> tuple[float, ...]:
        other = option.settings.effective_batch != kept
        return other, option.seconds or option.cost, option.peak

    return place


def _timed(judged: list[Option]) -> list[Option]:
    """Return the options with a time each. Where no step was run, the time is in proportion to the
    cost.
    """
    known = [option.seconds / option.cost for option in judged if option.seconds]
    if not known:
        return judged
    each = statistics.median(known)
    return [dataclasses.replace(o, seconds=o.seconds or each * o.cost) for o in judged]


def _predicted(question: Question, option: Option, measures: Sequence[Measure]) -> int:
    """Return the peak, in bytes, predicted from before the option itself was measured.

    Of an estimate that is the peak that will be seen: more than the need, on which the option was
    judged, where MLX has memory to run ahead in.
    """
    if option.degree is Degree.EXTRAPOLATED:
        return option.peak
    before = [
        m for m in measures if m.step != option.step or not same_work(m.settings, option.settings)
    ]
    by_others = judge(question, before)
    peak, degree = by_others.peak(option.settings, option.step)
    seen = by_others.expected(option.settings, option.step)
    return max(peak, seen) if degree is Degree.ESTIMATED else peak


def _room(question: Question, option: Option) -> int:
    return question.budget.room(option.degree)


def bucket_of(question: Question) -> int:
    """Return the bucket of padded lengths, in tokens, the same for all options."""
    settings = starting_settings(question)
    return length_bucket(question, settings, lengths(question, settings)[0])

"""Real training steps at a given shape: their peak memory and their time."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator

import mlx.core as mx
import numpy as np

from safetraind.host import footprint_alone
from safetraind.worker.training.batches import Batch
from safetraind.worker.training.step import Stepper
from safetraind.worker_messages.probe_messages import Measure, Setup, Step

# A speed repeats within a few percent. A peak varies by its largest array, as a free may come
# before or after the next allocation. On a CPU this depends on how many operations the process
# began before: MLX hands them to its thread in tens (mlx/backend/cpu/encoder.h). The peak of a
# training is the higher one, so quick steps are run several times, each at another place within the
# ten, and near MLX's limit, where the difference comes most, longer ones too. There the peak also
# varies with the shape, so that narrower ones are run as well.
#
# A step begins as many operations each time, so that it would come to the same places again and
# again. With these more before each step ten steps come to seven places at least, whatever they
# begin themselves (found by trying: with one more each time it is four).
_MORE_OPERATIONS = (1, 2, 3, 0, 1, 0, 8, 4, 5, 2)
_MOST_STEPS = len(_MORE_OPERATIONS)
_ENOUGH_SECONDS = 2.0
_NEAR_LIMIT = 0.9
_ENOUGH_SECONDS_NEAR_LIMIT = 10.0
_STEPS_OF_NARROWER = 2  # the first compiles
_MOST_SAMPLE_SECONDS = 15.0  # what takes longer was asked for before speeds were known
_MOST_PASSES = 3  # over a sample, as long as they take no longer than `_ENOUGH_SECONDS`
_PACKED_SAMPLES = 4  # in a row that is made up; memory does not depend on it


def measure(
    stepper: Stepper,
    setup: Setup,
    vocabulary: int,
    time_for: Callable[[float], bool],
) -> Measure | None:
    """Run real steps of the setup. Return peak, speed, the seconds of each step that apply the
    gradient, and the process's bytes beside MLX's arrays.

    The first step compiles and reads about 5 % low, so it is discarded. `time_for` is asked, with
    the seconds that the first step took, whether there is time for another; None where not.
    """
    step, packed = setup.step, setup.settings.packing
    batch = made_up(step.rows, step.width, step.learned, vocabulary, packed=packed)
    if setup.limit:
        mx.set_memory_limit(setup.limit)
    # One micro-batch stands for all that are accumulated: it is added to zeros.
    stepper.accumulates = setup.settings.gradient_accumulation > 1
    window = [batch]
    began = time.monotonic()
    stepper.step(window, 0, 0.0)
    if not time_for(time.monotonic() - began):
        return None
    mx.clear_cache()
    mx.reset_peak_memory()
    began, steps, updating = time.monotonic(), 0, 0.0
    while _more(steps, time.monotonic() - began, setup):
        _begin_operations(_MORE_OPERATIONS[steps])
        steps += 1
        updating += stepper.step(window, steps, 0.0).update_seconds
    seconds = time.monotonic() - began
    if step.valid_width:
        evaluated = made_up(step.rows, step.valid_width, step.valid_learned, vocabulary)
        stepper.evaluate([evaluated])
    held = mx.get_active_memory() + mx.get_cache_memory()
    outside = max(0, footprint_alone(os.getpid()) - held)
    peak = mx.get_peak_memory()
    peak = max([peak, *_peaks_near_limit(stepper, setup, vocabulary, time_for)])
    return Measure(
        setup.settings,
        step,
        peak=peak,
        tokens_per_second=steps * step.tokens / seconds,
        outside=outside,
        update_seconds=updating / steps,
        limit=setup.limit,
        sample=_time_sample(stepper, setup, vocabulary, seconds / steps, time_for),
    )


def _more(steps: int, seconds: float, setup: Setup) -> bool:
    """Return whether to run another step after so many, which took so many seconds."""
    longer = not setup.small and _is_near(setup.limit)
    enough = _ENOUGH_SECONDS_NEAR_LIMIT if longer else _ENOUGH_SECONDS
    return not steps or (steps < _MOST_STEPS and seconds < enough)


def _is_near(limit: int) -> bool:
    """Return whether the peak is near MLX's memory limit; 0: there is none."""
    return limit > 0 and mx.get_peak_memory() > _NEAR_LIMIT * limit


def _peaks_near_limit(
    stepper: Stepper, setup: Setup, vocabulary: int, time_for: Callable[[float], bool]
) -> Iterator[int]:
    """Yield the peak of each narrower shape, as long as the one before it was near the limit and
    there is time.
    """
    for step in setup.narrower:
        if not _is_near(setup.limit):
            return
        began = time.monotonic()
        batch = made_up(
            step.rows, step.width, step.learned, vocabulary, packed=setup.settings.packing
        )
        mx.reset_peak_memory()
        for number in range(_STEPS_OF_NARROWER):
            stepper.step([batch], number, 0.0)
        yield mx.get_peak_memory()
        if not time_for(time.monotonic() - began):
            return


def _time_sample(
    stepper: Stepper,
    setup: Setup,
    vocabulary: int,
    heaviest: float,
    time_for: Callable[[float], bool],
) -> tuple[tuple[Step, float], ...]:
    """Return the micro-batches of the setup's sample with the seconds of each, without applying the
    gradient; none where they would take too long. `heaviest`: the seconds of the heaviest.

    In an order that mixes widths, as a training does: MLX reuses fewer of its buffers than where
    they come sorted. Each is run before, as that compiles. Quick ones are run up to three times.
    """
    steps, packed = setup.sample, setup.settings.packing
    seconds = 2 * heaviest * sum(step.tokens for step in steps) / setup.step.tokens
    if not steps or seconds > _MOST_SAMPLE_SECONDS or not time_for(seconds):
        return ()
    mixed = random.Random(0).sample(steps, len(steps))
    batches = [made_up(s.rows, s.width, s.learned, vocabulary, packed=packed) for s in mixed]
    for batch in batches:
        stepper.step([batch], 0, 0.0)
    passes: list[list[float]] = []
    began = time.monotonic()
    while len(passes) < _MOST_PASSES and (time.monotonic() - began < _ENOUGH_SECONDS or not passes):
        passes.append([_seconds(stepper, batch) for batch in batches])
    return tuple(
        (step, statistics.median(each)) for step, *each in zip(mixed, *passes, strict=True)
    )


def _seconds(stepper: Stepper, batch: Batch) -> float:
    """Return the seconds of a micro-batch, without applying the gradient."""
    began = time.monotonic()
    updating = stepper.step([batch], 1, 0.0).update_seconds
    return time.monotonic() - began - updating


def _begin_operations(number: int) -> None:
    """Begin so many operations of one element each."""
    one = mx.array(0.0)
    for _ in range(number):
        one = one + 1
    mx.eval(one)


def made_up(rows: int, width: int, learned: int, vocabulary: int, *, packed: bool = False) -> Batch:
    """Return a micro-batch of random tokens without padding, of which `learned` predictions count.

    `packed`: each row holds a few samples.
    """
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, vocabulary, (rows, width), np.int32)
    places = np.sort(rng.permutation(rows * width)[:learned]).astype(np.int32)
    segments = np.tile(np.arange(width, dtype=np.int32) * _PACKED_SAMPLES // width, (rows, 1))
    positions = np.tile(np.arange(width, dtype=np.int32), (rows, 1))
    return Batch(
        inputs=inputs,
        places=places,
        targets=rng.integers(0, vocabulary, learned, np.int32),
        weights=np.ones(learned, np.float32),
        segments=segments if packed else None,
        positions=positions if packed else None,
        samples=(),
        tokens=rows * width,
        learned=learned,
    )

"""The shapes that a run computes on, counted from the lengths of its samples alone.

Samples are sorted by length, cut into windows and micro-batches, and padded by the rules of
`batching`, as the trainer does it. With packing a row holds several samples, and nearly all rows
are one width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from statistics import mean

from safetrain_shared.settings import LENGTH_BUCKET, TrainingSettings
from safetraind.batching import QUARTERS, packed_rows, packed_width, padded, quarters
from safetraind.worker_messages.inspect_messages import Lengths
from safetraind.worker_messages.probe_messages import Step

# Of the steps that are run beside the heaviest: their least share of its width, and their number.
_NARROWEST = 0.6
_MOST_NARROWER = 4


def heaviest_step(
    lengths: Lengths,
    settings: TrainingSettings,
    *,
    bucket: int = LENGTH_BUCKET,
    valid: Lengths | None = None,
) -> Step:
    """Return the micro-batch that needs most memory.

    It is the widest one, with as many predictions through the head as samples of that width can
    have. `valid`: where its samples are wider than the training's, the widest batch of an
    evaluation belongs to the step.
    """
    rows, longest = settings.batch_size, settings.max_seq_length
    if settings.packing:
        width = _packed_widths(lengths.tokens, longest, bucket)[0][0]
        learned = rows * width  # full rows; the share that counts is unknown beforehand
    else:
        width, learned = _widest(lengths, longest, rows, bucket)
    valid_width, valid_learned = _widest(valid, longest, rows, bucket) if valid else (0, 0)
    if valid_width <= width:
        valid_width = valid_learned = 0
    return Step(rows, width, learned, valid_width, valid_learned)


def scaled(step: Step, rows: int, width: int) -> Step:
    """Return a step of another shape with the share of predictions that `step` has."""
    learned = step.learned * rows * width // step.tokens
    return Step(rows, width, quarters(learned, rows * width))


def mean_step(step: Step, tokens: int, batches: int, bucket: int = LENGTH_BUCKET) -> Step:
    """Return the micro-batch of mean width of an epoch of so many tokens, padding included, and
    micro-batches. `step` is the heaviest.
    """
    width = bucket * max(1, round(tokens / batches / step.rows / bucket))
    return scaled(step, step.rows, min(width, step.width))


def narrower_steps(
    lengths: Lengths, settings: TrainingSettings, step: Step, bucket: int = LENGTH_BUCKET
) -> tuple[Step, ...]:
    """Return micro-batches that are somewhat narrower than `step`, the heaviest one, the widest
    first: at most four of those that the samples make.
    """
    widths = [width for width, _ in _rows(lengths, settings, bucket)]
    near = [width for width in widths if _NARROWEST * step.width <= width < step.width]
    every = max(1, -(-len(near) // _MOST_NARROWER))
    return tuple(scaled(step, step.rows, width) for width in near[::every])


def _widest(lengths: Lengths, max_seq_length: int, rows: int, bucket: int) -> tuple[int, int]:
    """Return the width and predictions of the widest micro-batch of `rows` samples."""
    longest = max(1, min(lengths.longest, max_seq_length))
    width = padded(longest - 1, bucket)
    kept = [_kept(tokens, learned, max_seq_length) for tokens, learned in lengths.tops]
    widest = sorted((n for tokens, n in kept if padded(tokens - 1, bucket) == width), reverse=True)
    others = sorted((n for tokens, n in kept if padded(tokens - 1, bucket) < width), reverse=True)
    predictions = sum([*widest, *others, *[width] * rows][:rows])
    return width, quarters(predictions, rows * width)


def _kept(tokens: int, learned: int, length: int) -> tuple[int, int]:
    """Return a sample cut to `length`, taking the learned tokens to be its last ones."""
    return min(tokens, length), max(0, learned - max(0, tokens - length))


def padded_tokens(
    lengths: Lengths, settings: TrainingSettings, bucket: int = LENGTH_BUCKET
) -> tuple[int, int]:
    """Return the tokens with padding, and micro-batches, of one pass over the samples that were
    counted.
    """
    found = micro_batches(lengths, settings, bucket)
    return sum(count * step.tokens for step, count in found), sum(count for _, count in found)


def micro_batches(
    lengths: Lengths, settings: TrainingSettings, bucket: int = LENGTH_BUCKET
) -> list[tuple[Step, int]]:
    """Return the micro-batches of one pass over the samples that were counted, the widest first,
    and how many there are of each.

    The predictions of the longest samples are known; of the others the first learned token is
    taken to be at the mean place.
    """
    return [
        (Step(rows, width, quarters(max(1, round(learned)), rows * width)), count)
        for rows, width, learned, count in _filled(lengths, settings, bucket)
    ]


def sample_of(
    lengths: Lengths, settings: TrainingSettings, bucket: int, most: int
) -> tuple[Step, ...]:
    """Return shapes of micro-batches of one pass, the widest first: at most so many, evenly spaced
    among all.
    """
    found = [step for step, _ in micro_batches(lengths, settings, bucket)]
    shapes = list(dict.fromkeys(found))
    number = min(len(shapes), most)
    return tuple(shapes[(2 * n + 1) * len(shapes) // (2 * number)] for n in range(number))


def _filled(
    lengths: Lengths, settings: TrainingSettings, bucket: int
) -> Iterator[tuple[int, int, float, int]]:
    """Yield the micro-batches of one pass as rows, width, predictions, and how many there are."""
    most, filled, width, learned = settings.batch_size, 0, 0, 0.0
    for narrower, count, each in _learned(lengths, settings, bucket):
        joining = min(count, -filled % most)  # these join a micro-batch of a longer sample
        filled, learned = (filled + joining) % most, learned + joining * each
        if joining and not filled:
            yield most, width, learned, 1
        if count > joining:
            whole, filled = divmod(count - joining, most)
            width, learned = narrower, filled * each
            if whole:
                yield most, width, most * each, whole
    if filled:
        yield filled, width, learned, 1


def _learned(
    lengths: Lengths, settings: TrainingSettings, bucket: int
) -> list[tuple[int, int, float]]:
    """Return the widths of rows, the widest first, with their number and the mean predictions of
    one.
    """
    rows, longest = _rows(lengths, settings, bucket), settings.max_seq_length
    unlearned = sum(place * count for place, count in lengths.answers)
    if settings.packing:
        share = 1 - unlearned / max(1, sum(tokens * count for tokens, count in lengths.tokens))
        return [(width, count, share * width) for width, count in rows]
    known: dict[int, list[int]] = {}
    for tokens, learned in lengths.tops:
        inputs, kept = _kept(tokens, learned, longest)
        known.setdefault(padded(inputs - 1, bucket), []).append(kept)
    first = unlearned / max(1, sum(count for _, count in lengths.answers))
    return [
        (width, count, mean(known[width]) if width in known else max(1.0, width - first))
        for width, count in rows
    ]


def counted_rows(lengths: Lengths, settings: TrainingSettings, bucket: int = LENGTH_BUCKET) -> int:
    """Return the rows of one pass over the samples that were counted: samples, or with packing full
    rows.
    """
    return sum(count for _, count in _rows(lengths, settings, bucket))


def _rows(lengths: Lengths, settings: TrainingSettings, bucket: int) -> Sequence[tuple[int, int]]:
    """Return the widths of rows with their number, the widest first."""
    if settings.packing:
        return _packed_widths(lengths.tokens, settings.max_seq_length, bucket)
    return _widths(lengths, settings.max_seq_length, bucket)


@lru_cache(maxsize=64)
def _packed_widths(
    tokens: tuple[tuple[int, int], ...], max_seq_length: int, bucket: int
) -> Sequence[tuple[int, int]]:
    """Return the widths of packed rows with their number, the widest first."""
    waiting: dict[int, int] = {}
    for length, count in tokens:
        inputs = min(length, max_seq_length) - 1
        waiting[inputs] = waiting.get(inputs, 0) + count
    common = packed_width(waiting, max_seq_length - 1, bucket)
    rows: dict[int, int] = {}
    for longest, *_ in packed_rows(waiting, common):
        width = max(common, padded(longest, bucket))
        rows[width] = rows.get(width, 0) + 1
    return sorted(rows.items(), reverse=True)


def compiled_shapes(
    lengths: Lengths,
    settings: TrainingSettings,
    bucket: int = LENGTH_BUCKET,
    valid: Lengths | None = None,
) -> int:
    """Return an upper bound of the number of shapes (rows, width, predictions) that a run compiles.

    Each full width and the last, smaller micro-batch of an epoch count, those of evaluations
    included.
    """
    widths = len(_rows(lengths, settings, bucket))
    evaluated = len(_widths(valid, settings.max_seq_length, bucket)) if valid else 0
    last = settings.batch_size > 1
    return QUARTERS * (widths + last + (evaluated + last if evaluated else 0))


def widths(lengths: Lengths, settings: TrainingSettings, bucket: int = LENGTH_BUCKET) -> int:
    """Return the number of widths to which rows are padded."""
    return len(_rows(lengths, settings, bucket))


def _widths(lengths: Lengths, max_seq_length: int, bucket: int) -> list[tuple[int, int]]:
    """Return the padded widths with their number of samples, the widest first."""
    counts: dict[int, int] = {}
    for tokens, count in lengths.tokens:
        width = padded(min(tokens, max_seq_length) - 1, bucket)
        counts[width] = counts.get(width, 0) + count
    return sorted(counts.items(), reverse=True)

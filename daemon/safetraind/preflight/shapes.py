"""The shapes that a run computes on, counted from the lengths of its samples alone.

Follows `worker.batches`: samples sorted by length, cut into windows and micro-batches, each padded
to a multiple of the bucket.
"""

from __future__ import annotations

from collections.abc import Iterator

from safetrain_shared.settings import TrainingSettings
from safetraind.preflight.facts import Lengths
from safetraind.preflight.memory import Step

LENGTH_BUCKET = 32


def padded(length: int, bucket: int = LENGTH_BUCKET) -> int:
    """`length` rounded up as `worker.batches.padded` does it."""
    step = max(bucket, 1 << max(0, (max(length, 1) - 1).bit_length() - 4))
    return -(-max(length, 1) // step) * step


def heaviest_step(lengths: Lengths, max_seq_length: int, rows: int, *, fused: bool) -> Step:
    """The micro-batch of `rows` samples that needs most memory: the widest one, with as many
    predictions through the head as samples of that width can have.
    """
    longest = max(1, min(lengths.longest, max_seq_length))
    width = padded(longest - 1)
    kept = [_kept(tokens, learned, max_seq_length) for tokens, learned in lengths.tops]
    widest = sorted((n for tokens, n in kept if padded(tokens - 1) == width), reverse=True)
    others = sorted((n for tokens, n in kept if padded(tokens - 1) < width), reverse=True)
    predictions = sum([*widest, *others, *[width] * rows][:rows])
    return Step(rows, width, _quarters(predictions, rows * width), fused)


def _kept(tokens: int, learned: int, length: int) -> tuple[int, int]:
    """A sample cut to `length`, taking the learned tokens to be its last ones."""
    return min(tokens, length), max(0, learned - max(0, tokens - length))


def _quarters(count: int, whole: int) -> int:
    """As `worker.batches` rounds the number of predictions: to quarters of all tokens."""
    quarter = -(-whole // 4)
    return min(whole, max(1, -(-count // quarter)) * quarter)


def padded_tokens(lengths: Lengths, max_seq_length: int, rows: int) -> tuple[int, int]:
    """Tokens with padding, and micro-batches, of one pass over the samples that were counted."""
    tokens, batches, filled = 0, 0, 0
    for width, count in _widths(lengths, max_seq_length):
        rest = min(count, -filled % rows)  # these join a micro-batch of a longer sample
        filled += count
        whole = -(-(count - rest) // rows)
        tokens += width * rows * whole
        batches += whole
    return tokens, batches


def compiled_shapes(lengths: Lengths, settings: TrainingSettings) -> int:
    """Upper bound of the shapes (rows, width) that a run compiles; one with packing."""
    if settings.packing:
        return 1
    widths = len(list(_widths(lengths, settings.max_seq_length)))
    return 2 * widths if settings.batch_size > 1 else widths


def _widths(lengths: Lengths, max_seq_length: int) -> Iterator[tuple[int, int]]:
    """Padded widths with their number of samples, the widest first."""
    counts: dict[int, int] = {}
    for tokens, count in lengths.tokens:
        width = padded(min(tokens, max_seq_length) - 1)
        counts[width] = counts.get(width, 0) + count
    yield from sorted(counts.items(), reverse=True)

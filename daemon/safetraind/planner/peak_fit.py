"""Fits the peak memory of a training step to real steps at small shapes.

For one way of computing, with B rows of T tokens in a micro-batch:

    peak = base + a·B·T + b·B·T²

The quadratic term is bounded by what attention scores can take: at small T it drowns in the noise,
and a free one was once 117 % off. The curve passes through the largest sample, so that its error
grows only from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FEWEST = 2  # samples of different shapes, for a curve
# A smaller step tells little of the peak, which is then of a few arrays that come and go: by steps
# of 48 and 128 tokens of qwen3 (50k vocabulary) one of 80 was 7.5 % too low, by steps of 96 and 128
# of phi (51k) one of 192 was 5.3 %. And it takes hardly less time than a step of so many.
FEWEST_TOKENS = 128
# How much larger than what was run a shape may be.
_REACH_TOKENS = 2.1
_REACH_WIDTH = 1.5
# A bounded curve that is so far from a sample does not describe the model.
_MISFIT = 0.02


@dataclass(frozen=True, slots=True)
class Sample:
    """A step that was run, and the bytes at its peak."""

    rows: int
    width: int
    peak: int

    @property
    def tokens(self) -> int:
        """The tokens of the micro-batch, padding included."""
        return self.rows * self.width

    @property
    def square(self) -> int:
        """The factor that attention scores are proportional to."""
        return self.rows * self.width**2


@dataclass(frozen=True, slots=True)
class Fit:
    """Bytes: `base`, `per_token`, `per_square`.

    `least_tokens`, `most_tokens` and `widest`: of a shape that is not too far from those that were
    run.
    """

    base: float
    per_token: float
    per_square: float
    least_tokens: float
    most_tokens: float
    widest: float

    def reaches(self, rows: int, width: int) -> bool:
        """Return whether the shape is near enough to the shapes that were run."""
        return self.least_tokens <= rows * width <= self.most_tokens and width <= self.widest

    def peak(self, rows: int, width: int) -> int:
        """Return the peak of a step of this shape, in bytes."""
        tokens = rows * width
        return round(self.base + self.per_token * tokens + self.per_square * tokens * width)


def fit(samples: Sequence[Sample], most_per_square: float) -> Fit | None:
    """Return the curve through `samples`; None where there are fewer than two shapes.

    `most_per_square`: the bytes per B·T² that attention scores take at most, 0 where none are kept.
    Two samples do not determine the quadratic term, which is then taken to be `most_per_square`.
    """
    largest = {(s.rows, s.width): s for s in samples}
    ordered = sorted(largest.values(), key=lambda s: (s.tokens, s.width))
    if len(ordered) < FEWEST:
        return None
    square = most_per_square
    if len(ordered) > FEWEST:
        free = max(0.0, _quadratic(ordered))
        square = min(free, most_per_square)
        if _misfit(ordered, square) > _MISFIT:
            square = free  # more than attention: a model whose layers loop over the tokens
    per_token = _linear(ordered, square)
    near = ordered[-1]
    base = near.peak - per_token * near.tokens - square * near.square
    widest = _REACH_WIDTH * max(s.width for s in ordered)
    reach = ordered[0].tokens, _REACH_TOKENS * near.tokens, widest
    return Fit(base, per_token, square, *reach)


def probe_shapes(rows: int, width: int, bucket: int, narrowest: int = 1) -> list[tuple[int, int]]:
    """Return small shapes (rows, width) to run before one of `rows` × `width`, the lightest first,
    none narrower than `narrowest` tokens.

    With three rows and more they have the full width, so that only the number of rows, which the
    peak is linear in, is left to extrapolate. With two rows a narrower third tells how much of the
    peak is proportional to B·T². The last is half to three quarters of the shape itself.
    """
    if rows == 1:
        wanted = [(1, width // 4), (1, width // 2), (1, 3 * width // 4)]
    elif rows == 2:
        wanted = [(1, width // 2), (1, width), (2, 3 * width // 4)]
    else:
        wanted = [(1, width), (rows // 2, width), (3 * rows // 4, width)]
    found: list[tuple[int, int]] = []
    for number, least in wanted:
        shape = number, bucket * -(-max(narrowest, least) // bucket)
        if shape[0] * shape[1] < rows * width and shape not in found:
            found.append(shape)
    return found


def _linear(samples: Sequence[Sample], square: float) -> float:
    """Return the coefficient of B·T, where that of B·T² is known."""
    return max(0.0, slope([(s.tokens, s.peak - square * s.square) for s in samples]))


def _misfit(samples: Sequence[Sample], square: float) -> float:
    """Return the distance of the curve with this quadratic coefficient from the worst sample, as a
    share.
    """
    linear = _linear(samples, square)
    left = [s.peak - linear * s.tokens - square * s.square for s in samples]
    base = sum(left) / len(left)
    return max(abs(rest - base) / s.peak for rest, s in zip(left, samples, strict=True))


def _quadratic(samples: Sequence[Sample]) -> float:
    """Return the least-squares coefficient of B·T² beside a constant and B·T (by Gram-Schmidt)."""
    tokens = [float(s.tokens) for s in samples]
    squares = _residuals(tokens, [float(s.square) for s in samples])
    peaks = _residuals(tokens, [float(s.peak) for s in samples])
    size = sum(value * value for value in squares)
    # Where all have one width, B·T² is B·T times a constant.
    if size <= 1e-9 * sum(float(s.square) ** 2 for s in samples):
        return 0.0
    return sum(a * b for a, b in zip(squares, peaks, strict=True)) / size


def _residuals(places: Sequence[float], values: Sequence[float]) -> list[float]:
    """Return the residuals of `values` after a straight-line fit over `places`."""
    pairs = list(zip(places, values, strict=True))
    line = slope(pairs)
    mean_place, mean = sum(places) / len(pairs), sum(values) / len(pairs)
    return [value - mean - line * (place - mean_place) for place, value in pairs]


def slope(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the least-squares slope of (x, y) pairs; 0 where all x are alike."""
    mean_x = sum(x for x, _ in pairs) / len(pairs)
    mean_y = sum(y for _, y in pairs) / len(pairs)
    spread = sum((x - mean_x) ** 2 for x, _ in pairs)
    product = sum((x - mean_x) * (y - mean_y) for x, y in pairs)
    return product / spread if spread else 0.0

"""Attention in blocks against MLX's own, in values and gradients, and what it keeps."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest

from safetrain_shared.attention import LEAST_WIDTH, attends_in_blocks
from safetraind.worker.training import block_attention
from safetraind.worker.training.block_attention import in_blocks
from tests.peaks import peak

from .test_recurrence import difference

Arrays = tuple[mx.array, ...]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_attention, "BLOCK", 16)


def masks(draw: random.Random, batch: int, heads: int, length: int, keys: int) -> list[Any]:
    """The masks that models use; the causal ones last."""
    place = mx.arange(keys - length, keys)[:, None]
    seen = place >= mx.arange(keys)
    window = seen & (place < mx.arange(keys) + draw.choice([3, 20]))
    cut = mx.arange(keys) >= draw.randrange(keys)
    packed = window & (cut[keys - length :, None] == cut)
    free = mx.random.normal((1, heads, 1, keys), key=mx.random.key(draw.randrange(1 << 20))) > -1
    alone = mx.broadcast_to(packed, (batch, 1, length, keys))
    return [None, free, "causal", seen, window, alone]


def values_and_gradients(attend: Callable[..., mx.array], operands: Arrays) -> list[mx.array]:
    """The output, and a gradient for each operand."""

    def loss(*operands: mx.array) -> mx.array:
        y = attend(*operands).astype(mx.float32)
        return (y * mx.cos(mx.arange(y.size)).reshape(y.shape)).sum()

    return [attend(*operands), *mx.grad(loss, argnums=list(range(len(operands))))(*operands)]


def worst(case: int) -> float:
    """The largest difference of a random case, in roundings of its type."""
    draw = random.Random(case)
    batch, groups, shared = draw.choice([1, 2]), draw.choice([1, 2]), draw.choice([1, 3])
    length, heads = draw.choice([2, 15, 16, 17, 40]), groups * shared
    keys = length + draw.choice([0, 0, 0, 9])
    size, values, kind = (
        draw.choice([4, 8]),
        draw.choice([4, 8]),
        draw.choice([mx.float32, mx.float32, mx.bfloat16]),
    )
    mask = draw.choice(masks(draw, batch, heads, length, keys))
    shapes = [
        (batch, heads, length, size),
        (batch, groups, keys, size),
        (batch, groups, keys, values),
    ]
    seeds = mx.random.split(mx.random.key(case), 4)
    operands = [
        mx.random.normal(shape, key=key).astype(kind)
        for shape, key in zip(shapes, seeds[:3], strict=True)
    ]
    if draw.random() < 0.3:
        operands.append(mx.random.normal((heads,), key=seeds[3]).astype(kind))
    causal = isinstance(mask, mx.array) and mask.ndim == 2 and length == keys

    def ours(q: mx.array, k: mx.array, v: mx.array, sinks: mx.array | None = None) -> mx.array:
        return block_attention.block_attention(q, k, v, 0.3, mask, sinks, causal=causal)

    def plain(q: mx.array, k: mx.array, v: mx.array, sinks: mx.array | None = None) -> mx.array:
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=0.3, mask=mask, sinks=sinks)

    pairs = zip(
        values_and_gradients(ours, tuple(operands)),
        values_and_gradients(plain, tuple(operands)),
        strict=True,
    )
    return max(difference(a, b) / mx.finfo(kind).eps for a, b in pairs)


@pytest.mark.usefixtures("small_blocks")
def test_blocks_equal_mlx_attention_within_rounding() -> None:
    assert max(worst(case) for case in range(60)) < 40


def test_scores_are_never_kept() -> None:
    length, heads = 2 * LEAST_WIDTH, 2
    operands = tuple(
        mx.random.normal((1, n, length, 16), key=mx.random.key(n)) for n in (heads, 1, 1)
    )

    def attend(*operands: mx.array) -> mx.array:
        return mx.fast.scaled_dot_product_attention(*operands, scale=0.25, mask="causal")

    def attended() -> None:
        mx.eval(values_and_gradients(attend, operands))

    def most() -> int:
        """A fifth of the peaks are 27 MB, the others 31 or 32: one array is freed sooner."""
        return max(peak(attended) for _ in range(10))

    mx.eval(operands)
    plain = most()
    with in_blocks():
        assert 1.5 * most() < plain
    assert most() > 0.9 * plain, "the original is back after the block"


def test_scores_that_are_added_keep_their_gradient() -> None:
    width = LEAST_WIDTH + 1
    row = mx.random.normal((1, 1, width, 4), key=mx.random.key(0))

    def loss(added: mx.array) -> mx.array:
        y = mx.fast.scaled_dot_product_attention(row, row, row, scale=0.5, mask=added)
        return (y * row).sum()

    with in_blocks():
        assert mx.abs(mx.grad(loss)(mx.zeros((width, width)))).sum().item() > 0


def test_blocks_are_chosen_only_where_they_pay() -> None:
    def blocks(width: int, masked: bool, size: int, fused: bool) -> bool:
        return attends_in_blocks(width, masked=masked, sizes=(size, size), fused=fused)

    assert blocks(4096, masked=False, size=64, fused=False)
    assert blocks(4096, masked=True, size=64, fused=True)
    assert blocks(4096, masked=False, size=100, fused=True)
    assert not blocks(4096, masked=False, size=64, fused=True)
    assert not blocks(LEAST_WIDTH, masked=True, size=64, fused=False)

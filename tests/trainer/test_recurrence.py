"""The recurrences in chunks against the rule applied token by token, in values and gradients."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models import bailing_moe_linear, gated_delta, jamba, mamba, recurrent_gemma, rwkv7, ssm

from safetraind.worker.training.recurrence.chunked_scan import chunked_scan
from safetraind.worker.training.recurrence.replacements import in_chunks
from tests.peaks import peak

Arrays = tuple[mx.array, ...]


def token_by_token(
    q: mx.array, k: mx.array, v: mx.array, log_decay: mx.array, beta: mx.array, state: mx.array
) -> tuple[mx.array, mx.array]:
    """The rule as the papers state it; `beta` below zero: without the delta rule."""
    repeats = v.shape[2] // k.shape[2]
    q, k = (mx.repeat(part.astype(mx.float32), repeats, axis=2) for part in (q, k))
    decay = mx.exp(log_decay if log_decay.ndim == 4 else log_decay[..., None]).astype(mx.float32)
    found = []
    for t in range(v.shape[1]):
        state = decay[:, t, ..., None] * state
        written = v[:, t].astype(mx.float32)
        held = (state * k[:, t, ..., None]).sum(-2)
        rate = beta[:, t, :, None].astype(mx.float32)
        written = mx.where(rate < 0, written, rate * (written - held))
        state = state + k[:, t, ..., None] * written[..., None, :]
        found.append((state * q[:, t, ..., None]).sum(-2))
    return mx.stack(found, axis=1), state


def made_up(draw: random.Random, *, dual: bool = False) -> tuple[Arrays, bool]:
    """Random arguments of `token_by_token`, and whether the delta rule is on. `dual`: of the form
    that has a gradient of its own.
    """
    batch, groups, shared = draw.choice([1, 2]), draw.choice([1, 2]), draw.choice([1, 3])
    length = draw.choice([1, 2, 31, 63, 64, 65, 100, 129, *([300, 513] if dual else [])])
    keys, values, heads = draw.choice([4, 16]), draw.choice([4, 8]), groups * shared
    kind = draw.choice([mx.float32, mx.float32, mx.bfloat16, mx.float16])
    seeds = iter(mx.random.split(mx.random.key(draw.randrange(1 << 30)), 9))

    def normal(*shape: int) -> mx.array:
        return mx.random.normal(shape, key=next(seeds)).astype(kind)

    k = normal(batch, length, groups, keys)
    k = k / mx.linalg.norm(k.astype(mx.float32), axis=-1, keepdims=True).astype(kind)
    if draw.random() < 0.2:
        k = mx.broadcast_to(k[:, :1], k.shape)  # keys all alike: the hardest system to solve
    gates = (batch, length, heads, *([keys] if draw.random() < 0.4 and not dual else []))
    strength = draw.choice([0.01, 1.0, 30.0])
    log_decay = -strength * mx.random.uniform(shape=gates, key=next(seeds)) ** 4
    delta = draw.random() < 0.7 and not dual
    beta = mx.random.uniform(high=1.0, shape=(batch, length, heads), key=next(seeds))
    q, v = normal(batch, length, groups, keys), normal(batch, length, heads, values)
    state = mx.random.normal((batch, heads, keys, values), key=next(seeds))
    return (q, k, v, log_decay, beta if delta else -mx.ones_like(beta), state), delta


def difference(found: mx.array, expected: mx.array) -> float:
    """The largest one, in parts of the largest expected number."""
    a, b = found.astype(mx.float32), expected.astype(mx.float32)
    largest = float(mx.abs(b).max().item())
    return float(mx.abs(a - b).max().item()) / max(largest, 1e-3)


def values_and_gradients(function: Callable[..., Any], arguments: Arrays) -> list[mx.array]:
    """Both results of `function`, and a gradient for each argument."""

    def loss(*arguments: mx.array) -> mx.array:
        y, state = function(*arguments)
        weights = mx.cos(mx.arange(y.size)).reshape(y.shape)
        return (y.astype(mx.float32) * weights).sum() + 0.3 * state.astype(mx.float32).sum()

    gradients = mx.grad(loss, argnums=list(range(len(arguments))))(*arguments)
    return [*function(*arguments), *gradients]


def worst(draw: random.Random, *, dual: bool = False) -> float:
    """The largest difference of one random case, in units of its type's rounding (2⁻²³ or more)."""
    arguments, delta = made_up(draw, dual=dual)

    def ours(*arguments: mx.array) -> Any:
        q, k, v, log_decay, beta, state = arguments
        return chunked_scan(q, k, v, log_decay, beta if delta else None, state)

    found = values_and_gradients(ours, arguments)
    expected = values_and_gradients(token_by_token, arguments)
    return max(
        difference(a, b) / mx.finfo(b.dtype).eps
        for a, b in zip(found, expected, strict=True)
        if float(mx.abs(b).max().item()) > 0
    )


def test_chunks_equal_the_rule_within_rounding() -> None:
    assert max(worst(random.Random(case), dual=case % 3 == 0) for case in range(30)) < 40


@pytest.mark.slow
def test_chunks_equal_the_rule_over_many_shapes_types_and_lengths() -> None:
    found = [worst(random.Random(1000 + case), dual=case % 3 == 0) for case in range(360)]
    print(f"\nlargest difference over {len(found)} cases: {max(found):.1f} roundings")
    assert max(found) < 40


def test_segments_equal_each_sample_alone() -> None:
    for case in range(8):
        draw = random.Random(case)
        (q, k, v, log_decay, beta, _), delta = made_up(draw, dual=case % 2 == 0)
        length = v.shape[1]
        cuts = sorted({0, length, *(draw.randrange(length + 1) for _ in range(3))})
        spans = [slice(a, b) for a, b in pairwise(cuts)]
        numbers = [n for n, span in enumerate(spans) for _ in range(length)[span]]
        segments = mx.broadcast_to(mx.array(numbers), v.shape[:2])

        def packed(*parts: mx.array, segments: mx.array = segments, delta: bool = delta) -> Any:
            *four, beta = parts
            y, _ = chunked_scan(*four, beta if delta else None, segments=segments)
            return y, mx.zeros(1)

        def alone(*parts: mx.array, spans: list[slice] = spans, delta: bool = delta) -> Any:
            found = []
            for span in spans:
                *four, beta = (part[:, span] for part in parts)
                found.append(chunked_scan(*four, beta if delta else None)[0])
            return mx.concatenate(found, axis=1), mx.zeros(1)

        arguments = q, k, v, log_decay, beta
        pairs = zip(
            values_and_gradients(packed, arguments),
            values_and_gradients(alone, arguments),
            strict=True,
        )
        assert max(difference(a, b) / mx.finfo(b.dtype).eps for a, b in pairs) < 40


def _normal(*shape: int) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(sum(shape)))


def _block() -> Any:
    arguments = mamba.ModelArgs("mamba", 32, 16, 32, 4, 1, 4, False, True, 4, use_bcdt_rms=True)
    return mamba.MambaBlock(arguments)


def _mixer() -> Any:
    layer = jamba.JambaMambaMixer.__new__(jamba.JambaMambaMixer)
    nn.Module.__init__(layer)
    layer.time_step_rank, layer.ssm_state_size, width = 4, 4, 16
    layer.x_proj, layer.dt_proj = nn.Linear(width, 12, bias=False), nn.Linear(4, width)
    layer.dt_layernorm, layer.b_layernorm, layer.c_layernorm = (nn.RMSNorm(4) for _ in range(3))
    layer.A_log, layer.D = _normal(width, 4), mx.ones(width)
    return layer


def _wkv() -> Any:
    layer = rwkv7.Rwkv7TimeMixing.__new__(rwkv7.Rwkv7TimeMixing)
    nn.Module.__init__(layer)
    layer.num_heads, layer.head_dim = 2, 8
    return layer


B, T, H, D = 2, 70, 4, 8
_MAMBA, _MIXER, _WKV = _block(), _mixer(), _wkv()
_KEYS = _normal(B, T, 2, D)
_VALUES, _GATES = _normal(B, T, H, D), _normal(B, T, H)
_VECTORS = _KEYS / 4, _KEYS[::-1] / 4, _VALUES
CASES: dict[str, tuple[Callable[..., Any], Arrays]] = {
    "gated delta": (
        lambda *x: gated_delta.gated_delta_update(*x, use_kernel=False),
        (*_VECTORS, _GATES, _GATES[::-1], _normal(H), _normal(H)),
    ),
    "gated delta with a lower bound": (
        lambda *x: gated_delta.gated_delta_update(*x, use_kernel=False, lower_bound=-5.0),
        (*_VECTORS, _VALUES[::-1], _GATES, _normal(H, 1), _normal(H, D)),
    ),
    "SSD": (
        lambda *x: ssm.ssm_update(*x),
        (_VALUES, _normal(H), _KEYS, _KEYS[::-1], _normal(H), _GATES, _normal(H)),
    ),
    "linear attention": (
        lambda q, k, v: bailing_moe_linear.recurrent_gla(q, k, v, -mx.arange(1, 5) / 8, 0.25),
        (_normal(B, H, T, D), _normal(B, H, T, D), _normal(B, H, T, D)),
    ),
    "RG-LRU": (
        lambda x, a: recurrent_gemma.rnn_scan(x, mx.sigmoid(a), None),
        (_normal(B, T, D), _normal(B, T, D)),
    ),
    "Mamba": (
        lambda x: (_MAMBA._process_sequence(x, None, None)[0], mx.zeros(1)),
        (_normal(B, T, 16),),
    ),
    "Mamba in Jamba": (
        lambda x: _MIXER.ssm_step(x, -mx.exp(_MIXER.A_log)),
        (_normal(B, T, 16),),
    ),
    "RWKV-7": (
        lambda *x: _WKV._wkv7(x[0], mx.sigmoid(x[1]), *(part / 4 for part in x[2:]), None),
        tuple(mx.random.normal((1, T, 2, 8), key=mx.random.key(n)) for n in range(6)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_replacement_equals_what_it_stands_for(name: str) -> None:
    function, arguments = CASES[name]
    expected = values_and_gradients(function, arguments)
    with in_chunks():
        found = values_and_gradients(function, arguments)
    assert max(difference(a, b) for a, b in zip(found, expected, strict=True)) < 1e-5


def test_replacements_are_gone_after_the_block() -> None:
    before = gated_delta.gated_delta_update, ssm.ssm_update, mamba.MambaBlock._process_sequence
    with in_chunks(mx.zeros((1, 4), mx.int32)):
        assert gated_delta.gated_delta_update is not before[0]
        assert nn.Conv1d.__call__.__module__ != "mlx.nn.layers.convolution"
    after = gated_delta.gated_delta_update, ssm.ssm_update, mamba.MambaBlock._process_sequence
    assert after == before
    assert nn.Conv1d.__call__.__module__ == "mlx.nn.layers.convolution"


def _peak(function: Callable[..., Any], arguments: Arrays) -> int:
    def once() -> None:
        mx.eval(values_and_gradients(function, arguments))

    once()  # makes what is made only once
    return min(peak(once), peak(once))


def _wide() -> dict[str, tuple[Callable[..., Any], Arrays]]:
    """Layers with heads as wide as real ones."""
    heads, length, size = 2, 384, 64
    row, gate, single = (1, length, heads, size), (1, length, heads), (heads,)
    q, k, v = (_normal(*row) / 8 for _ in range(3))
    turned = tuple(part.swapaxes(1, 2) for part in (q, k, v))
    gated = q, k, v, _normal(*gate), _normal(*gate), _normal(*single), _normal(*single)
    selective = v, _normal(*single), k, q, _normal(*single), _normal(*gate), _normal(*single)
    decay, x = -mx.array([0.1, 0.2]), _normal(1, length, 16)
    return {
        "gated delta": (CASES["gated delta"][0], gated),
        "SSD": (CASES["SSD"][0], selective),
        "linear attention": (
            lambda *x: bailing_moe_linear.recurrent_gla(*x, decay, 0.1),
            turned,
        ),
        "Mamba": (CASES["Mamba"][0], (x,)),
    }


@pytest.mark.parametrize("name", ["gated delta", "SSD", "linear attention", "Mamba"])
def test_the_original_still_needs_more_memory(name: str) -> None:
    """Fails on the day that mlx-lm trains in as little memory: remove our replacement then."""
    function, arguments = _wide()[name]
    theirs = _peak(function, arguments)
    with in_chunks():
        ours = _peak(function, arguments)
    assert theirs > 1.3 * ours, f"mlx-lm's own {name} is as good now: remove ours"


@pytest.mark.parametrize("name", ["gated delta", "SSD", "Mamba"])
def test_memory_grows_linearly_with_the_length(name: str) -> None:
    """Over two doublings, from where there are enough chunks that the first weighs little."""
    function, arguments = _wide()[name]
    length = 384

    def of_length(times: int) -> int:
        longer = (mx.repeat(a, times, axis=1) if length in a.shape else a for a in arguments)
        return _peak(function, tuple(longer))

    with in_chunks():
        assert of_length(8) < 2.2**2 * of_length(2)


def test_the_fast_operation_still_needs_more_memory() -> None:
    """Where `mx.fast.gated_delta_update` trains in as little memory, it takes the place of ours."""
    function, arguments = _wide()["gated delta"]
    q, k, v, a, b, *_ = arguments

    def fast(*parts: mx.array) -> Any:
        q, k, v, a, b = parts
        return mx.fast.gated_delta_update(q, k, v, mx.exp(-nn.softplus(a)), mx.sigmoid(b))

    theirs = _peak(fast, (q, k, v, a, b))
    with in_chunks():
        ours = _peak(function, arguments)
    assert theirs > 1.3 * ours, "mx.fast.gated_delta_update is as good now: use it"

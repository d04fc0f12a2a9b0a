"""mlx-lm's recurrences in forms that cost less in training: put in place for a pass, then removed.

mlx-lm 0.32 trains gated delta nets, Mamba 1, linear attention and RG-LRU token by token, and SSD
layers in chunks of 256 whose decay matrices are all kept. The functions here have the signatures
of the ones they stand for, and the same results within float32 rounding. What they do not cover (a
padding mask) is left to the original.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import gated_delta, ssm
from mlx_lm.models.activations import swiglu

from safetraind.worker.training.recurrence.chunked_scan import chunked_scan
from safetraind.worker.training.recurrence.diagonal_scan import diagonal_scan, selective_scan
from safetraind.worker.training.recurrence.spans import in_spans

MODELS = "mlx_lm.models"
_RWKV_SPAN = 32  # tokens

Pair = tuple[mx.array, mx.array]


@contextmanager
def in_chunks(segments: mx.array | None = None) -> Iterator[None]:
    """Make every model of mlx-lm compute its recurrences in chunks inside this context.

    `segments` (B, T) numbers the samples of packed rows from left to right: where one begins, the
    state is zero, and a convolution sees nothing before it.
    """
    originals = []
    for owner, name, replacement in list(_replacements(segments)):
        originals.append((owner, name, getattr(owner, name)))
        setattr(owner, name, replacement)
    try:
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def _replacements(segments: mx.array | None) -> Iterator[tuple[Any, str, Any]]:
    """Yield (owner, name, replacement) for loaded modules, since each importing module binds the
    name.
    """
    functions: dict[str, tuple[Any, Callable[..., Any]]] = {
        "gated_delta_update": (gated_delta, _gated_delta_update),
        "ssm_update": (ssm, _ssm_update),
        "recurrent_gla": (_loaded("bailing_moe_linear"), _recurrent_gla),
        "rnn_scan": (_loaded("recurrent_gemma"), _rnn_scan),
    }
    models = [module for name, module in sys.modules.items() if name.startswith(MODELS)]
    for name, (home, replacement) in functions.items():
        original = getattr(home, name, None)
        for module in models:
            if original is not None and getattr(module, name, None) is original:
                yield module, name, partial(replacement, segments, original)
    methods: list[tuple[str, str, str, Callable[..., Any]]] = [
        ("mamba", "MambaBlock", "_process_sequence", _mamba),
        ("jamba", "JambaMambaMixer", "ssm_step", _jamba),
        ("rwkv7", "Rwkv7TimeMixing", "_wkv7", _wkv7),
    ]
    for module_name, class_name, name, replacement in methods:
        if (owner := getattr(_loaded(module_name), class_name, None)) is not None:
            yield owner, name, _method(replacement, segments)
    if segments is not None:
        yield nn.Conv1d, "__call__", _method(partial(_conv, nn.Conv1d.__call__), segments)


def _loaded(name: str) -> Any:
    return sys.modules.get(f"{MODELS}.{name}")


def _method(function: Callable[..., Any], segments: mx.array | None) -> Callable[..., Any]:
    return lambda layer, *args: function(segments, layer, *args)


def _gated_delta_update(
    segments: mx.array | None,
    original: Callable[..., Pair],
    q: mx.array,
    k: mx.array,
    v: mx.array,
    a: mx.array,
    b: mx.array,
    A_log: mx.array,  # noqa: N803  # mlx-lm's name
    dt_bias: mx.array,
    state: mx.array | None = None,
    mask: mx.array | None = None,
    *,
    lower_bound: float | None = None,
    allow_neg_eigval: bool = False,
    **options: Any,
) -> Pair:
    """Replace `gated_delta.gated_delta_update`, with decays as logarithms from the start."""
    if mask is not None:
        gates: dict[str, Any] = {"lower_bound": lower_bound, "allow_neg_eigval": allow_neg_eigval}
        return original(q, k, v, a, b, A_log, dt_bias, state, mask, **gates, **options)
    beta = mx.sigmoid(b) * (2.0 if allow_neg_eigval else 1.0)
    rate = mx.exp(A_log.astype(mx.float32))
    if lower_bound is None:
        log_decay = -rate * nn.softplus(a + dt_bias)
    else:
        log_decay = lower_bound * mx.sigmoid(rate * (a.astype(mx.float32) + dt_bias))
    before = None if state is None else state.swapaxes(-1, -2)
    y, last = chunked_scan(q, k, v, log_decay, beta, before, segments)
    return y.astype(q.dtype), last.swapaxes(-1, -2)


def _ssm_update(
    segments: mx.array | None,
    original: Callable[..., Pair],
    x: mx.array,
    A_log: mx.array,  # noqa: N803
    B: mx.array,  # noqa: N803
    C: mx.array,  # noqa: N803
    D: mx.array,  # noqa: N803
    dt: mx.array,
    dt_bias: mx.array,
    state: mx.array | None = None,
    time_step_limit: tuple[float, float] = (0.001, 100.0),
    mask: mx.array | None = None,
    lengths: mx.array | None = None,
) -> Pair:
    """Replace `ssm.ssm_update`: B are the keys, C the queries, and dt x is written."""
    if mask is not None or lengths is not None:
        return original(x, A_log, B, C, D, dt, dt_bias, state, time_step_limit, mask, lengths)
    dt = ssm.compute_dt(dt, dt_bias, time_step_limit)
    log_decay = -mx.exp(A_log).astype(dt.dtype) * dt
    before = None if state is None else state.swapaxes(-1, -2)
    y, last = chunked_scan(C, B, dt[..., None] * x, log_decay, None, before, segments)
    return y.astype(x.dtype) + x * D[:, None], last.swapaxes(-1, -2)


def _recurrent_gla(
    segments: mx.array | None,
    _: Callable[..., Pair],
    q: mx.array,
    k: mx.array,
    v: mx.array,
    g: mx.array,
    scale: float,
    h: mx.array | None = None,
) -> Pair:
    """Replace `bailing_moe_linear.recurrent_gla`, where each head decays at a rate of its own."""
    queries, keys, values = (part.swapaxes(1, 2) for part in (q * scale, k, v))
    log_decay = mx.broadcast_to(g.astype(mx.float32), values.shape[:3])
    y, last = chunked_scan(queries, keys, values, log_decay, None, h, segments)
    return y.swapaxes(1, 2).astype(q.dtype), last


def _rnn_scan(
    segments: mx.array | None,
    _: Callable[..., Pair],
    x: mx.array,
    a: mx.array,
    h0: mx.array | None,
) -> Pair:
    """Replace `recurrent_gemma.rnn_scan`."""
    return diagonal_scan(mx.broadcast_to(a, x.shape), x, h0, _starts(segments))


def _mamba(
    segments: mx.array | None,
    layer: Any,
    x: mx.array,
    conv_cache: mx.array | None,
    state: mx.array | None,
) -> tuple[mx.array, Pair]:
    """Replace `mamba.MambaBlock._process_sequence`."""
    x, z = layer.in_proj(x).split(2, axis=-1)
    kept = layer.conv_kernel_size - 1
    if conv_cache is None:
        wide = mx.pad(x, [(0, 0), (kept, 0), (0, 0)])
    else:
        wide = mx.concatenate([conv_cache, x], axis=1)
    y, state = _selective(layer, nn.silu(layer.conv1d(wide)), state, segments, _mamba_parts)
    return layer.out_proj(swiglu(z, y)), (wide[:, -kept:, :], state)


def _jamba(
    segments: mx.array | None,
    layer: Any,
    x: mx.array,
    _: mx.array,
    state: mx.array | None = None,
) -> Pair:
    """Replace `jamba.JambaMambaMixer.ssm_step`."""
    return _selective(layer, x, state, segments, _jamba_parts)


def _mamba_parts(layer: Any, parts: list[mx.array]) -> list[mx.array]:
    if not layer.use_bcdt_rms:
        return parts
    return [mx.fast.rms_norm(part, weight=None, eps=layer.args.mixer_rms_eps) for part in parts]


def _jamba_parts(layer: Any, parts: list[mx.array]) -> list[mx.array]:
    norms = layer.dt_layernorm, layer.b_layernorm, layer.c_layernorm
    return [norm(part) for norm, part in zip(norms, parts, strict=True)]


def _selective(
    layer: Any,
    x: mx.array,
    state: mx.array | None,
    segments: mx.array | None,
    normed: Callable[[Any, list[mx.array]], list[mx.array]],
) -> Pair:
    """Return the selective state-space step of Mamba 1 on all tokens `x` (B, T, D) after the
    convolution.

    `normed` does to delta, B and C what the architecture does.
    """
    rank, size = layer.time_step_rank, layer.ssm_state_size
    parts = mx.split(layer.x_proj(x), [rank, rank + size], axis=-1)
    delta, b, c = normed(layer, list(parts))
    delta = nn.softplus(layer.dt_proj(delta))
    rate = -mx.exp(layer.A_log.astype(mx.float32))
    y, state = selective_scan(x, delta, rate, b, c, state, _starts(segments))
    return y.astype(x.dtype) + layer.D * x, state


def _wkv7(
    _: mx.array | None,
    layer: Any,
    r: mx.array,
    w: mx.array,
    k: mx.array,
    v: mx.array,
    a: mx.array,
    b: mx.array,
    state: mx.array | None,
) -> Pair:
    """Replace `rwkv7.Rwkv7TimeMixing._wkv7`: token by token, but in spans that are recomputed.

    (The original's kernel for Metal has no backward pass.)
    """
    if state is None:
        state = mx.zeros((r.shape[0], layer.num_heads, layer.head_dim, layer.head_dim), r.dtype)
    y, state = in_spans(lambda _: _wkv7_span, state, [r, w, k, v, a, b], _RWKV_SPAN)
    return y.astype(r.dtype), state


def _wkv7_span(state: mx.array, *parts: mx.array) -> list[mx.array]:
    step: Any = sys.modules[f"{MODELS}.rwkv7"]._wkv7_step_ops
    tokens = [[t.squeeze(1) for t in mx.split(part, part.shape[1], axis=1)] for part in parts]
    found = []
    for token in zip(*tokens, strict=True):
        y, state = step(*token, state)
        found.append(y)
    return [mx.stack(found, axis=1), state]


def _conv(original: Callable[..., mx.array], segments: mx.array, layer: Any, x: mx.array) -> Any:
    """Return a depthwise causal convolution that sees only its own sample.

    `x` (B, K - 1 + T, D) begins with K - 1 tokens of zeros, as mlx-lm's layers make it.
    """
    channels, kernel, _ = layer.weight.shape
    length = segments.shape[1]
    if layer.groups != channels or x.shape[1] != length + kernel - 1:
        return original(layer, x)
    numbers = mx.pad(segments, [(0, 0), (kernel - 1, 0)], constant_values=-1)
    total = layer.bias if "bias" in layer else mx.zeros((), x.dtype)
    for place in range(kernel):
        own = (numbers[:, place : place + length] == segments)[..., None]
        seen = mx.where(own, x[:, place : place + length], mx.array(0, x.dtype))
        total = total + seen * layer.weight[:, place, 0]
    return total


def _starts(segments: mx.array | None) -> mx.array | None:
    """Return 1 where a sample begins, (B, T). The first token needs none."""
    if segments is None:
        return None
    changes = segments[:, 1:] != segments[:, :-1]
    return mx.pad(changes.astype(mx.float32), [(0, 0), (1, 0)])

"""Where the time of a step goes, beside a bare loop of the same matrix products.

The products of a step are listed by their sizes and run alone, on random numbers, with nothing
between them: the layers' matrices forward, backward through those above the first adapter, the
adapters' own, and the head's. Attention is run alone as well, there and back, and so is the loss
on logits that exist. The optimizer and the time until a step is handed to MLX (Python, and MLX's
replay of the compiled graph) are taken from real steps. The rest of a step is norms, activations,
rotary embeddings, copies, and what MLX waits between operations.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from benchmarks.train import setup
from safetraind.worker.probe.steps import made_up
from safetraind.worker.training.batches import Batch
from safetraind.worker.training.block_attention import in_blocks
from safetraind.worker.training.step import Stepper, _on_device

ROWS, WIDTH, LAYERS, ROUNDS = 4, 256, 4, 3
Product = tuple[int, int, int]  # (m, k) times (k, n)


def report(model: Path) -> None:
    """Prints the parts of a step in milliseconds and as shares of it."""
    stepper = setup.ours(model, setup.settings(lora_layers=LAYERS, gradient_accumulation=1))
    vocabulary = _vocabulary(stepper.model)
    batch = made_up(ROWS, WIDTH, ROWS * WIDTH // 2, vocabulary)
    print(f"\nWhere a step's time goes: {ROWS} × {WIDTH} tokens, half of them learned, {LAYERS}")
    print(f"LoRA layers, float32, median of {ROUNDS}:")
    parts = {
        "matrix products, alone": _timed(_bare_loop(list(products(stepper.model, batch)))),
        "attention, alone": _timed(_attention(stepper.model)),
        "loss, without the head's product": _timed(_loss(batch, vocabulary)),
    }
    steps = [stepper.step([batch], n, 1e-5) for n in range(ROUNDS + 1)][1:]
    parts["optimizer, clipping"] = statistics.median(s.update_seconds for s in steps)
    parts["Python, handing over"] = _handing_over(stepper, batch)
    whole = statistics.median(s.seconds for s in steps)
    parts["the rest"] = whole - sum(parts.values())
    for name, seconds in (*parts.items(), ("the step", whole)):
        print(f"  {name:34} {1e3 * seconds:8.1f} ms {seconds / whole:6.1%}", flush=True)


def products(model: nn.Module, batch: Batch) -> Iterator[Product]:
    """Every matrix product of a step, forward and backward; weights that are frozen need none for
    themselves.
    """
    layers: list[Any] = model.layers
    trained = [any("lora_a" in m for m in layer.modules()) for layer in layers]
    first = trained.index(True)
    for place, layer in enumerate(layers):
        for module in layer.modules():
            if "lora_a" in module:
                (inputs, rank), outputs = module.lora_a.shape, module.lora_b.shape[1]
                yield from _there_and_back(batch.inputs.size, inputs, rank, weights=True)
                yield from _there_and_back(batch.inputs.size, rank, outputs, weights=True)
            elif isinstance(module, nn.Linear):
                outputs, inputs = module.weight.shape
                yield from _there_and_back(batch.inputs.size, inputs, outputs, back=place >= first)
    hidden = model.layers[0].input_layernorm.weight.shape[0]
    yield from _there_and_back(batch.learned, hidden, _vocabulary(model))


def _there_and_back(
    rows: int, inputs: int, outputs: int, *, back: bool = True, weights: bool = False
) -> Iterator[Product]:
    yield rows, inputs, outputs
    if back:
        yield rows, outputs, inputs
    if weights:
        yield inputs, rows, outputs


def _bare_loop(sizes: list[Product]) -> Callable[[], list[mx.array]]:
    shapes = {shape for m, k, n in sizes for shape in ((m, k), (k, n))}
    numbers = {shape: mx.random.normal(shape) for shape in sorted(shapes)}
    mx.eval(numbers)

    def run() -> list[mx.array]:
        for m, k, n in sizes:
            mx.eval(numbers[m, k] @ numbers[k, n])  # one at a time, as they depend on each other
        return []

    return run


def _attention(model: nn.Module) -> Callable[[], list[mx.array]]:
    """That of all layers: those above the first adapter back as well."""
    own: Any = model.layers[0].self_attn
    heads, keys = own.n_heads, own.n_kv_heads
    size = own.q_proj.weight.shape[0] // heads
    q, k, v = (mx.random.normal((ROWS, n, WIDTH, size)) for n in (heads, keys, keys))
    mx.eval(q, k, v)

    def forward(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=size**-0.5, mask="causal").sum()

    both = mx.value_and_grad(forward, argnums=[0, 1, 2])
    count = len(model.layers)

    def run() -> list[mx.array]:
        with in_blocks(causal_masks=True):
            for place in range(count):
                mx.eval((both if place >= count - LAYERS else forward)(q, k, v))
        return []

    return run


def _loss(batch: Batch, vocabulary: int) -> Callable[[], list[mx.array]]:
    logits, targets = mx.random.normal((batch.learned, vocabulary)), mx.array(batch.targets)
    mx.eval(logits, targets)
    both = mx.compile(
        mx.value_and_grad(lambda found: nn.losses.cross_entropy(found, targets).sum())
    )
    return lambda: list(both(logits))


def _handing_over(stepper: Stepper, batch: Batch) -> float:
    """Seconds until a step's graph is with MLX, which has computed nothing of it then."""
    taken = []
    for _ in range(ROUNDS):
        arrays = _on_device(batch)
        mx.eval(arrays)
        began = time.perf_counter()
        loss, _ = stepper._accumulate(arrays, mx.random.key(0), mx.array(1.0), None)
        taken.append(time.perf_counter() - began)
        mx.eval(loss)
    return statistics.median(taken)


def _timed(run: Callable[[], list[mx.array]]) -> float:
    """Seconds, the median of ROUNDS after one to warm up."""
    taken = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        mx.eval(run())
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def _vocabulary(model: Any) -> int:
    return int(model.model.embed_tokens.weight.shape[0])

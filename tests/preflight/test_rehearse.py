from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import pytest

from safetrain_shared.settings import TrainingSettings
from safetraind.worker.loading import load
from safetraind.worker.probe.graph import FUSED, fused, trace
from safetraind.worker.probe.order import evaluation_order
from safetraind.worker.probe.playback import peak
from safetraind.worker.probe.probe import made_up
from safetraind.worker.probe.rehearse import Rehearsal, will_compile
from safetraind.worker.training.batches import Batch
from safetraind.worker.training.step import Stepper
from tests.tiny import make_tiny_model

MB = 1 << 20
SIDE = 512  # a matrix of it takes one megabyte


def chain(x: mx.array) -> list[mx.array]:
    return [mx.exp(x @ x) + 1.0]


def test_a_traced_graph_knows_every_shape_and_evaluates_nothing() -> None:
    huge = mx.zeros((1 << 20, 1 << 10))  # would take four gigabytes
    before = mx.get_active_memory()
    graph = trace(lambda x: [mx.square(x).sum()], [huge])
    assert mx.get_active_memory() == before
    assert [operation.name for operation in graph.operations][:2] == ["Square", "Reduce"]
    assert graph.sizes[graph.operations[0].outputs[0]] == 4 << 30


def test_element_wise_operations_write_in_place() -> None:
    assert peak(trace(chain, [mx.zeros((SIDE, SIDE))])) == MB


def test_a_result_that_is_still_needed_is_kept() -> None:
    def function(x: mx.array) -> list[mx.array]:
        first = x @ x
        return [first @ mx.exp(first)]

    assert peak(trace(function, [mx.zeros((SIDE, SIDE))])) == 3 * MB


def test_a_repeated_row_does_not_lend_its_memory_to_the_whole() -> None:
    def function(x: mx.array) -> list[mx.array]:
        product = x @ x
        return [product - product.max(axis=1, keepdims=True)]

    assert peak(trace(function, [mx.zeros((SIDE, SIDE))])) >= 2 * MB


def test_what_nobody_else_holds_is_written_into() -> None:
    arrays = [mx.zeros((SIDE, SIDE)), mx.zeros((SIDE, SIDE))]

    def function(x: mx.array, older: mx.array) -> list[mx.array]:
        return [older + x]

    assert peak(trace(function, arrays)) == MB
    assert peak(trace(function, arrays, passing=1)) == 0


def cross_entropy(x: mx.array) -> list[mx.array]:
    targets = mx.arange(SIDE)
    return [mx.grad(lambda y: nn.losses.cross_entropy(y @ y, targets).sum())(x)]


def attention(x: mx.array) -> list[mx.array]:
    def loss(y: mx.array) -> mx.array:
        heads = y.reshape(1, SIDE, 8, 64).transpose(0, 2, 1, 3)
        attended = mx.fast.scaled_dot_product_attention(
            heads, heads, heads, scale=0.1, mask="causal"
        )
        return attended.transpose(0, 2, 1, 3).reshape(SIDE, SIDE).square().sum()

    return [mx.grad(loss)(x)]


def normed(x: mx.array) -> list[mx.array]:
    weight = mx.ones((SIDE,))
    return [mx.grad(lambda y: mx.fast.rms_norm(y @ y, weight, 1e-5).sum())(x)]


def turned(x: mx.array) -> list[mx.array]:
    def loss(y: mx.array) -> mx.array:
        heads = (y @ y).reshape(1, SIDE, 8, 64).transpose(0, 2, 1, 3)
        return (
            mx.fast.rope(heads, 64, traditional=False, base=1e4, scale=1.0, offset=0).square().sum()
        )

    return [mx.grad(loss)(x)]


def picked(x: mx.array) -> list[mx.array]:
    places = mx.arange(0, SIDE, 4)
    return [mx.grad(lambda y: (y @ y)[places].square().sum())(x)]


def halved(x: mx.array) -> list[mx.array]:
    return [
        mx.grad(lambda y: nn.silu((y @ y).astype(mx.bfloat16) @ y.astype(mx.bfloat16)).sum())(x)
    ]


@pytest.mark.parametrize(
    "function", [chain, cross_entropy, attention, normed, turned, picked, halved]
)
def test_no_operation_takes_more_than_it_is_said_to(
    function: Callable[[mx.array], list[mx.array]],
) -> None:
    x = mx.random.normal((SIDE, SIDE))
    predicted = peak(trace(function, [x]))
    seen = []
    for _ in range(3):
        mx.eval(x)
        mx.synchronize()
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(function(x))
        seen.append(mx.get_peak_memory() - before)
    assert max(seen) <= 1.02 * predicted
    assert predicted <= 1.3 * max(seen)


def test_fusing_joins_a_chain_and_hides_what_lies_between() -> None:
    def function(x: mx.array) -> list[mx.array]:
        return [mx.exp(mx.sin(x) * mx.cos(x)) @ x]

    graph = trace(function, [mx.zeros((SIDE, SIDE))])
    assert [operation.name for operation in fused(graph).operations] == [FUSED, "Matmul"]
    assert peak(fused(graph)) <= peak(graph)


def test_every_operation_is_evaluated_once_and_after_what_it_reads() -> None:
    graph = trace(lambda x: [(x @ x) + mx.exp(x), mx.sin(x @ x)], [mx.zeros((8, 8))])
    order = evaluation_order(graph)
    assert sorted(map(id, order)) == sorted(map(id, graph.operations))
    made = set(graph.given)
    for operation in order:
        assert made.issuperset(operation.inputs)
        made.update(operation.outputs)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient_checkpointing": True},
        {"loss_chunk": 64},
        {"gradient_accumulation": 2},
        {"lora_layers": 1, "loss_chunk": 64, "gradient_checkpointing": True},
    ],
    ids=["plain", "recomputed", "loss in chunks", "accumulated", "all of it"],
)
def test_a_rehearsed_peak_is_close_to_the_one_that_is_run(
    tmp_path: Path, changes: dict[str, int]
) -> None:
    settings = dataclasses.replace(TrainingSettings(), **changes)
    folder = str(make_tiny_model(tmp_path / "m", hidden=128, vocab=2048))
    batch = made_up(2, 128, 192, 2048)
    predicted = rehearsed(folder, settings, batch)
    gc.collect()
    mx.clear_cache()
    others = mx.get_active_memory()  # what earlier tests left behind
    stepper = Stepper(load(folder).model, settings, seed=0)
    window = [batch] * settings.gradient_accumulation
    stepper.step(window, 0, 0.0)
    mx.clear_cache()
    mx.reset_peak_memory()
    stepper.step(window, 1, 0.0)
    stepper.step(window, 2, 0.0)
    assert 0.98 <= predicted / (mx.get_peak_memory() - others) <= 1.1


def rehearsed(folder: str, settings: TrainingSettings, batch: Batch) -> int:
    return Rehearsal(load(folder).model, settings).peak(settings, batch)


def test_a_rehearsal_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = load(str(make_tiny_model(tmp_path / "m"))).model
    rehearsal = Rehearsal(model, TrainingSettings())
    tokens = mx.arange(16)[None]
    before, kinds = model(tokens), [type(layer) for layer in model.layers]
    settings = dataclasses.replace(TrainingSettings(), gradient_checkpointing=True)
    rehearsal.peak(settings, made_up(2, 32, 32, 512))
    assert mx.array_equal(model(tokens), before)
    assert [type(layer) for layer in model.layers] == kinds


def test_nothing_is_fused_where_compiling_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_DISABLE_COMPILE", "1")
    assert not will_compile()

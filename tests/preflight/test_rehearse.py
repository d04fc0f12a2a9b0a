from __future__ import annotations

import dataclasses
import gc
from pathlib import Path

import mlx.core as mx
import pytest

from safetrain_shared.settings import TrainingSettings
from safetraind.worker.loading import load
from safetraind.worker.probing.graph import FUSED, fused, trace
from safetraind.worker.probing.playback import evaluation_order, peak
from safetraind.worker.probing.probe import made_up
from safetraind.worker.probing.rehearse import Rehearsal, will_compile
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
    [{}, {"gradient_checkpointing": True}, {"loss_chunk": 64}, {"gradient_accumulation": 2}],
    ids=["plain", "recomputed", "loss in chunks", "accumulated"],
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
    assert 0.95 <= predicted / (mx.get_peak_memory() - others) <= 1.2


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

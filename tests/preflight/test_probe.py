"""The probe worker: what one setup or one model cannot do is found out, and ends nothing else."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import gemma3

from benchmarks.architectures import tiny_model
from safetrain_shared.codec import to_plain
from safetrain_shared.paths import RunFolder
from safetrain_shared.settings import TrainingSettings
from safetraind.preflight.probing import Round
from safetraind.storage.run_folder import KeeperNote
from safetraind.worker.loading import load
from safetraind.worker.probe import probe
from safetraind.worker.probe import steps as probe_steps
from safetraind.worker.probe.steps import measure
from safetraind.worker.training.step import Stepper
from safetraind.worker_messages.probe_messages import (
    PROBE,
    ProbeLine,
    ProbeRequest,
    ProbeResult,
    Setup,
    Step,
)
from safetraind.worker_messages.worker_result import WorkerResult
from tests.tiny import make_tiny_model

VOCABULARY = 512


def setup(rows: int = 2, valid_width: int = 0, width: int = 32, **settings: Any) -> Setup:
    chosen = dataclasses.replace(
        TrainingSettings(), batch_size=rows, gradient_accumulation=2, **settings
    )
    return Setup(chosen, Step(rows, width, rows * width, valid_width, rows * valid_width))


def probed(folder: Path, model: Path, *setups: Setup, seconds: float = 60) -> ProbeResult:
    """What a probe in this process finds; what other tests left in MLX's memory is not its own."""
    gc.collect()
    before = mx.get_active_memory()
    run = RunFolder(folder / "run")
    run.root.mkdir()
    request = ProbeRequest(str(model), setups, seconds=seconds)
    (run.root / "probe_request.json").write_text(json.dumps(to_plain(request)))
    assert probe.main([str(run.root)]) == 0
    found = PROBE.read_result(json.loads(run.probe.read_text()))
    assert isinstance(found, ProbeResult)
    own = tuple(dataclasses.replace(m, peak=m.peak - before) for m in found.measures)
    return dataclasses.replace(found, measures=own)


def test_a_tokenizer_that_makes_nothing_of_the_prompt_does_not_matter(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "m")
    config = json.loads((model / "tokenizer.json").read_text())
    config["normalizer"] = {"type": "Replace", "pattern": {"Regex": "[0-9 ]"}, "content": ""}
    (model / "tokenizer.json").write_text(json.dumps(config))
    assert load(str(model)).tokenizer.encode("1 2 3") == []
    found = probed(tmp_path, model, setup())
    assert found.loaded and found.loaded.seconds > 0 and found.measures


def test_what_the_model_cannot_be_trained_with_is_found_and_the_rest_is_run(tmp_path: Path) -> None:
    model = tiny_model.make("gpt2", tmp_path / "m")  # absolute positions: packed rows would differ
    packed, plain = setup(packing=True), setup()
    found = probed(tmp_path, model, packed, setup(rows=1, packing=True), plain)
    assert found.unsupported == ("packing",) and found.loaded and found.loaded.cause is None
    assert [measure.settings.packing for measure in found.measures] == [False]


def lines(folder: Path) -> list[ProbeLine]:
    """What the probe told as it went on."""
    text = RunFolder(folder / "run").partial.read_text()
    return [PROBE.read_line(json.loads(line)) for line in text.splitlines()]


def test_setups_are_run_in_turn_and_progress_is_told(tmp_path: Path) -> None:
    found = probed(tmp_path, make_tiny_model(tmp_path / "m"), setup(rows=1), setup(rows=2))
    assert [m.step.rows for m in found.measures] == [1, 2]
    assert found.splits_head is True and found.slow is None
    phases = [line.progress.phase for line in lines(tmp_path) if line.progress]
    assert phases == ["loading", "first_token", "measuring", "measuring"]


def test_what_there_is_no_time_for_is_not_begun_and_said(tmp_path: Path) -> None:
    heavy = setup(rows=2, width=4_000_000)
    found = probed(tmp_path, make_tiny_model(tmp_path / "m"), setup(rows=1), heavy, seconds=20)
    assert [m.step.rows for m in found.measures] == [1]
    assert found.slow and found.slow > 20
    assert not any(line.trying == heavy for line in lines(tmp_path))


@pytest.mark.parametrize("is_slow", [False, True])
def test_the_micro_batches_of_a_sample_are_timed_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_slow: bool
) -> None:
    sample = tuple(Step(2, width, 2 * width) for width in (32, 16))
    if is_slow:
        monkeypatch.setattr(probe_steps, "_MOST_SAMPLE_SECONDS", 0.0)
    asked = dataclasses.replace(setup(), sample=sample)
    (found,) = probed(tmp_path, make_tiny_model(tmp_path / "m"), asked).measures
    assert {step for step, _ in found.sample} == ({*sample} if not is_slow else set())
    assert all(0 < seconds < 10 for _, seconds in found.sample)


def test_where_there_is_no_time_for_a_sample_it_says_so_and_keeps_the_peak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_steps, "_MOST_SAMPLE_SECONDS", float("inf"))
    asked = dataclasses.replace(setup(), sample=(Step(2, 4_000_000, 16),))
    after = setup(rows=1)
    found = probed(tmp_path, make_tiny_model(tmp_path / "m"), asked, after, seconds=4)
    assert [(m.step.rows, m.sample) for m in found.measures] == [(2, ())]
    assert found.measures[0].peak > 0


def test_a_model_that_is_too_slow_is_told_after_its_first_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crawl(loaded: Any, clock: probe.Clock) -> str:
        clock.seconds_a_token = 10.0
        return "a"

    monkeypatch.setattr(probe, "_first_token", crawl)
    found = probed(tmp_path, make_tiny_model(tmp_path / "m"), setup())
    assert found.loaded and found.slow and found.slow > 60 and found.measures == ()


def test_a_model_whose_head_cannot_be_split_off_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stepper, "splits_head", property(lambda _: False))
    assert probed(tmp_path, make_tiny_model(tmp_path / "m"), setup()).splits_head is False


@pytest.mark.parametrize("error", [ValueError, RuntimeError, KeyError, NotImplementedError])
def test_a_model_that_cannot_be_trained_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refuse(*_: object) -> Any:
        raise error("no gradient of that")

    monkeypatch.setattr(probe, "measure", refuse)
    found = probed(tmp_path, make_tiny_model(tmp_path / "m"), setup())
    cause = found.loaded and found.loaded.cause
    assert cause and cause.code == "model.does_not_train"
    assert "no gradient of that" in str(cause.args["reason"])


def test_memory_that_runs_out_in_a_step_ends_the_process_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Any:
        raise RuntimeError("[metal::malloc] Attempting to allocate 999 bytes")

    monkeypatch.setattr(probe, "measure", refuse)
    with pytest.raises(RuntimeError):
        probed(tmp_path, make_tiny_model(tmp_path / "m"), setup())
    told = lines(tmp_path)
    trying = told[-2].trying
    assert told[-1].out_of_memory and trying and trying.step.rows == 2


def test_memory_that_runs_out_while_loading_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise RuntimeError("[malloc] Unable to allocate 999 bytes.")

    monkeypatch.setattr(probe, "load", refuse)
    found = probed(tmp_path, make_tiny_model(tmp_path / "m"), setup())
    cause = found.loaded and found.loaded.cause
    assert cause and cause.code == "model.does_not_load"
    assert "Unable to allocate" in str(cause.args["reason"])


def test_memory_that_runs_out_while_loading_again_is_that_of_the_next_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured before stands, and the model can be loaded."""
    loads, load = itertools.count(1), probe.load

    def once(*arguments: Any, **more: Any) -> Any:
        if next(loads) > 1:
            raise RuntimeError("[malloc] Unable to allocate 999 bytes.")
        return load(*arguments, **more)

    monkeypatch.setattr(probe, "load", once)
    leaner = setup(rows=1, gradient_checkpointing=True)
    with pytest.raises(RuntimeError):
        probed(tmp_path, make_tiny_model(tmp_path / "m"), setup(), leaner)
    round_ = Round()
    for line in lines(tmp_path):
        round_.note(line)
    round_.ended = WorkerResult(KeeperNote(code=1), None)
    round_.judge_end(str(tmp_path / "m"), 1 << 30)
    whole, died = round_.found.measures
    assert whole.settings == setup().settings and not whole.died
    assert died.settings == leaner.settings and died.died
    assert round_.found.loaded and round_.found.loaded.cause is None


def test_the_model_of_one_setup_does_not_count_in_the_peak_of_the_next(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "m", hidden=256, vocab=8192)
    lean = setup(rows=1, gradient_checkpointing=True)
    gc.disable()  # whether the collector came by chance must not decide
    try:
        second = probed(tmp_path, model, setup(rows=2), lean).measures[1]
        (tmp_path / "alone").mkdir()
        alone = probed(tmp_path / "alone", model, lean).measures[0]
    finally:
        gc.enable()
    assert 0.95 <= second.peak / alone.peak <= 1.05


def test_a_wide_evaluation_counts_in_the_peak(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "m", layers=2, vocab=4096)
    narrow, wide = probed(tmp_path, model, setup(), setup(valid_width=512)).measures
    assert wide.peak > 2 * narrow.peak


def test_a_model_within_a_model_is_measured(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "m")
    text = {
        "model_type": "gemma3_text",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": 64,
        "sliding_window_pattern": 2,
    }
    config = {"model_type": "gemma3", "vocab_size": VOCABULARY, "text_config": text}
    model = gemma3.Model(gemma3.ModelArgs.from_dict(json.loads(json.dumps(config))))
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
    found = probed(tmp_path, folder, setup(gradient_checkpointing=True))
    assert found.loaded and found.loaded.cause is None, found
    assert found.measures


@pytest.mark.parametrize(
    ("limit", "small", "enough", "steps"),
    [
        (0, False, 60, 10),
        (1 << 40, False, 0, 1),
        (1 << 40, False, 60, 10),
        (1, False, 0, 10),
        (1, True, 0, 1),
        (1, True, 60, 10),
    ],
)
def test_quick_steps_are_run_several_times_and_near_the_memory_limit_longer_ones(
    limit: int,
    small: bool,
    enough: int,
    steps: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A free may come before or after the next allocation, and the peak is the higher one. What
    only tells of larger steps is not searched for it.
    """
    monkeypatch.setattr(probe_steps, "_ENOUGH_SECONDS", enough)
    monkeypatch.setattr(probe_steps, "_ENOUGH_SECONDS_NEAR_LIMIT", 60)
    trial = dataclasses.replace(setup(rows=1), limit=limit, small=small)
    loaded = load(str(make_tiny_model(tmp_path / "model")), dequantize=False)
    stepper, done = Stepper(loaded.model, trial.settings, seed=0), list[int]()
    step = stepper.step
    stepper.step = lambda *a: done.append(1) or step(*a)  # type: ignore[method-assign, func-returns-value]
    before = mx.set_memory_limit(1 << 50)
    try:
        found = measure(stepper, trial, VOCABULARY, lambda _: True)
    finally:
        mx.set_memory_limit(before)
    assert found is not None and found.limit == limit
    assert len(done) == 1 + steps, "one of them compiles"


def test_micro_batches_are_added_up_as_in_the_training_whatever_was_run_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a small step of one micro-batch a plan with several was run without zeros to add to:
    near MLX's memory limit phi3 took 377 MB in that way, and 365 in training.
    """
    added: list[tuple[int, bool]] = []
    gradients = Stepper.gradients

    def noted(self: Stepper, window: Any, number: int) -> Any:
        added.append((len(window), self.accumulates))
        return gradients(self, window, number)

    monkeypatch.setattr(Stepper, "gradients", noted)
    plan = setup(rows=1)
    alone = dataclasses.replace(plan.settings, gradient_accumulation=1)
    small = dataclasses.replace(plan, settings=alone, small=True)
    found = probed(tmp_path, make_tiny_model(tmp_path / "model"), small, plan, small)
    assert len(found.measures) == 3
    assert set(added) == {(1, False), (1, True)}
    assert added[0] == added[-1] == (1, False)


def test_the_peak_of_other_shapes_counts_near_the_memory_limit_and_nowhere_else(
    tmp_path: Path,
) -> None:
    """There a narrower step may take more. As this cannot be had of a tiny model, these are wider;
    of the last, each step is below the limit.
    """
    loaded = load(str(make_tiny_model(tmp_path / "model")), dequantize=False)
    stepper, ran = Stepper(loaded.model, setup(rows=1).settings, seed=0), set[int]()
    step = stepper.step
    stepper.step = lambda window, *a: ran.add(window[0].inputs.shape[1]) or step(window, *a)  # type: ignore[method-assign, func-returns-value]
    others = tuple(Step(1, width, width) for width in (256, 1024))

    def peak(**changes: Any) -> int:
        mx.set_memory_limit(1 << 50)  # where the setup has none, that of the one before would hold
        trial = dataclasses.replace(setup(rows=1), **changes)
        found = measure(stepper, trial, VOCABULARY, lambda _: True)
        assert found is not None and found.step == trial.step
        return found.peak

    before = mx.set_memory_limit(1 << 50)
    try:
        peak()  # frees what was there before
        alone, middle = peak(limit=1), peak(limit=1, narrower=others[:1])
        alone_width = setup(rows=1).step.width
        assert ran == {alone_width, others[0].width}
        assert peak(limit=1, narrower=others) > middle > 1.2 * alone
        for limit in (0, 1 << 50):
            ran.clear()
            peak(limit=limit, narrower=others)
            assert ran == {alone_width}
    finally:
        mx.set_memory_limit(before)


def test_steps_begin_at_several_places_within_ten_operations_however_many_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLX hands operations to its thread in tens; where a step begins within them, and ends, alters
    its peak on a CPU: 60.5 or 66.1 MB of a small lfm2, each the same for a whole process.
    """
    began: list[int] = []
    begin = probe_steps._begin_operations
    monkeypatch.setattr(
        probe_steps, "_begin_operations", lambda number: began.append(number) or begin(number)
    )
    monkeypatch.setattr(probe_steps, "_ENOUGH_SECONDS", 60)
    loaded = load(str(make_tiny_model(tmp_path / "model")), dequantize=False)
    trial = setup(rows=1)
    assert measure(Stepper(loaded.model, trial.settings, 0), trial, VOCABULARY, lambda _: True)
    assert len(began) == 10
    for operations in range(10):
        places = {(n * operations + sum(began[:n])) % 10 for n in range(1, len(began) + 1)}
        assert len(places) >= 7

"""A loss or gradient that is no finite number: who is blamed, and what the run leaves behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm import load
from mlx_lm.utils import load_tokenizer

from safetrain_shared.events import CheckpointSaved, Evaluated, StepDone
from safetrain_shared.settings import TrainingSettings
from safetraind.worker.data.encode_chat import Encoder
from safetraind.worker.training import nonfinite
from safetraind.worker.training.batches import batch
from safetraind.worker.training.dataset import Samples, write
from safetraind.worker.training.step import Stepper
from tests.trainer.runs import SMALL, Run, make_run

pytestmark = pytest.mark.compiled

Data = tuple[Path, Path]


def failed(run: Run) -> tuple[str, dict[str, Any]]:
    outcome = run.finish()
    assert outcome.outcome == "failed"
    assert outcome.cause is not None
    assert "Traceback" not in run.folder.log.read_text()
    return outcome.cause.code, dict(outcome.cause.args)


def strict_json(run: Run, name: str) -> Any:
    """A file of the output folder, read as the standard has it: without NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads((run.output / name).read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def broken(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose embedding of "$" is NaN."""
    folder = tmp_path_factory.mktemp("broken") / "model"
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    weights = dict(mx.load(str(folder / "model.safetensors")))
    embedding = weights["model.embed_tokens.weight"]
    (word,) = load_tokenizer(folder).encode("$")
    weights["lm_head.weight"] = embedding + 0
    weights["model.embed_tokens.weight"] = mx.where(
        (mx.arange(len(embedding)) == word)[:, None], mx.nan, embedding
    )
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    return folder


def with_a_bad_line(file: Path, to: Path) -> Path:
    turns = [("user", "Custa 5 $?"), ("assistant", "Sim.")]
    bad = {"messages": [{"role": role, "content": text} for role, text in turns]}
    to.write_text(file.read_text() + json.dumps(bad) + "\n")
    return to


def test_a_learning_rate_that_is_too_high_is_blamed_and_nothing_is_spoilt(
    tmp_path: Path, model: Path, data: Data
) -> None:
    run = make_run(tmp_path, model, data, learning_rate=1e18, max_grad_norm=0.0, save_steps=1)
    code, args = failed(run)
    assert (code, args["rate"]) == ("train.non_finite_weights", 1e18)
    assert args["step"] == len(run.of(StepDone))
    assert run.json("training_state.json")["state"] == "failed"


def test_a_sample_that_the_base_model_cannot_compute_is_blamed(
    tmp_path: Path, broken: Path, data: Data
) -> None:
    train = with_a_bad_line(data[0], tmp_path / "train.jsonl")
    code, args = failed(make_run(tmp_path / "run", broken, (train, data[1])))
    assert (code, args["line"]) == ("train.non_finite_sample", 23)


def test_a_validation_sample_that_the_base_model_cannot_compute_is_blamed(
    tmp_path: Path, broken: Path, data: Data
) -> None:
    valid = with_a_bad_line(data[1], tmp_path / "valid.jsonl")
    run = make_run(tmp_path / "run", broken, (data[0], valid), save_steps=2)
    code, args = failed(run)
    assert (code, args["line"], args["path"]) == ("train.non_finite_validation", 7, str(valid))
    assert args["step"] == 0, "before the first step"
    assert run.of(Evaluated) == run.of(StepDone) == run.of(CheckpointSaved) == []
    strict_json(run, "training_metrics.json")
    strict_json(run, "training_summary.json")


def test_weights_gone_astray_are_seen_in_an_evaluation_before_they_are_saved(
    tmp_path: Path, model: Path, data: Data
) -> None:
    run = make_run(
        tmp_path, model, data, learning_rate=1e18, max_grad_norm=0.0, eval_steps=1, save_steps=1
    )
    code, args = failed(run)
    assert (code, args["step"]) == ("train.non_finite_evaluation", 1)
    assert run.checkpoints() == []


class Kinked(nn.Module):
    """A norm that changes nothing, but whose slope is infinite for sequences of one width."""

    def __init__(self, norm: nn.Module, width: int) -> None:
        super().__init__()
        self.inner, self._width = norm, width

    def __call__(self, x: mx.array) -> mx.array:
        level = 0.0 if x.shape[1] == self._width else 1.0
        found: mx.array = self.inner(x)
        return found + mx.sqrt(level + 0 * found.sum()) - level


@pytest.fixture
def samples(tmp_path: Path, model: Path, data: Data) -> Samples:
    encoded = Encoder(load_tokenizer(model), True).encode_file(str(data[0]))
    return write(tmp_path / "tokens", encoded, 192, {})


def test_where_only_its_gradient_is_not_finite_the_sample_is_named(
    model: Path, samples: Samples
) -> None:
    lengths = samples.lengths.tolist()
    kinked = next(n for n, length in enumerate(lengths) if n > 3 and lengths.count(length) == 1)
    network = load(str(model))[0]
    network.model.norm = Kinked(network.model.norm, lengths[kinked] - 1)
    stepper = Stepper(network, TrainingSettings(**SMALL), seed=1)
    window = [batch(samples, [(n,)], lengths[n] - 1) for n in (0, 1, kinked, 2)]
    done = stepper.step(window, 5, 1e-3)
    assert (done.finite, done.loss) == (False, pytest.approx(done.loss))
    cause = nonfinite.diagnose_step(stepper, window, samples, "train.jsonl", 5, 1e-3)
    assert (cause.code, cause.args["line"]) == ("train.non_finite_weights", samples.line(kinked))


def test_where_no_sample_fails_alone_the_one_with_the_largest_gradient_is_named(
    model: Path, samples: Samples
) -> None:
    stepper = Stepper(load(str(model))[0], TrainingSettings(**SMALL), seed=1)
    numbers = range(4)
    parts = [batch(samples, [(n,)], int(samples.lengths[n]) - 1) for n in numbers]
    sizes = [stepper.loss_and_norm([part], 5)[1] for part in parts]
    cause = nonfinite.diagnose_step(stepper, parts, samples, "train.jsonl", 5, 1e-3)
    assert cause.args["line"] == samples.line(sizes.index(max(sizes)))

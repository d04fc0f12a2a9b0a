"""Tries one architecture: `python -m benchmarks.architectures.trial NAME [WAY …]`.

Each way of training is compared with the plain one: the same model and adapter, uncompiled, its
logits computed whole, each sample alone, and mlx-lm's own recurrences and attention. Prints a JSON
object: for each way "" where it is right, else what it came to: "refused CODE: reason" where the
trainer says so with a sentence, "without: …" where it changes nothing, "wrong: …" or "crashed: …".
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map
from mlx_lm.generate import generate_step

from benchmarks.architectures import tiny_model
from safetrain_shared import attention
from safetrain_shared.errors import InvalidSetting, SafetrainError
from safetrain_shared.settings import TrainingSettings
from safetraind.worker.export.fuse import fuse
from safetraind.worker.loading import load
from safetraind.worker.training import adapters, block_attention
from safetraind.worker.training.batches import Batch
from safetraind.worker.training.step import Stepper

TOLERANCE = 2e-3  # of the gradient's length: float32 rounding, through a few layers and back
_LENGTHS = (23, 17)  # tokens; together longer than the windows
_SEED = 3
_SETTINGS: dict[str, Any] = {
    "batch_size": 1,
    "gradient_accumulation": 2,
    "lora_layers": 3,
    "lora_rank": 4,
    "learning_rate": 1e-3,
    "loss_chunk": 0,
}

Gradients = dict[str, mx.array]


class Without(Exception):
    """A way of training changed nothing, which is right but no help; the text says what."""


class Wrong(Exception):
    """A way of training gave something else than the plain one; the text says what."""


def main(arguments: Sequence[str]) -> int:
    """Tries the named ways, or all, one after the other; a refusal ends none but its own."""
    name, *wanted = arguments
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / name
        try:
            trial = Trial(_made(name, folder))
        except Exception as error:
            print(json.dumps({"load": _said(error)}))
            return 0
        found = {}
        for way in wanted or WAYS:
            try:
                WAYS[way](trial)
                found[way] = ""
            except Exception as error:  # whatever an architecture's own code makes of it
                found[way] = _said(error)
        print(json.dumps({"load": "", **found}))
    return 0


def _made(name: str, folder: Path) -> Path:
    """The architecture's model; where its code makes none, a folder that the loader will refuse."""
    try:
        return tiny_model.make(name, folder)
    except (Exception, SystemExit):
        return tiny_model.make_bare(name, folder)


def _said(error: BaseException) -> str:
    if isinstance(error, SafetrainError):
        reason = str(error.args_by_name.get("reason", ""))
        return f"refused {error.code}: {reason[:160]}"
    if isinstance(error, Without | Wrong):
        return f"{type(error).__name__.lower()}: {error}"
    lines = str(error).strip().splitlines() or [""]
    return f"crashed: {type(error).__name__}: {lines[0][:120]}"


class Trial:
    """One architecture's model on the disk, and what the plain way gives for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        load(str(folder), dequantize=False)

    def stepper(self, **settings: Any) -> Stepper:
        """A trainer of a fresh model, whose adapter is not at its beginning, where half is zero."""
        loaded = load(str(self.folder), dequantize=False)
        made = Stepper(loaded.model, _settings(**settings), _SEED)
        _move(loaded.model)
        return made

    def plain(self, **settings: Any) -> tuple[float, Gradients]:
        """The loss of both samples and its gradient, computed as simply as can be."""
        model = load(str(self.folder), dequantize=False).model
        adapters.attach(model, _settings(**settings), _SEED)
        _move(model)
        model.train()

        def loss() -> mx.array:
            parts = []
            for tokens in _samples():
                logits = model(mx.array(tokens[None, :-1]))
                parts.append(nn.losses.cross_entropy(logits, mx.array(tokens[None, 1:])).sum())
            return sum(parts[1:], parts[0]) / _predictions()

        value, gradients = nn.value_and_grad(model, loss)()
        return _number(value), dict(tree_flatten(gradients))


def _settings(**settings: Any) -> TrainingSettings:
    return TrainingSettings(**{**_SETTINGS, **settings})


def _move(model: nn.Module) -> None:
    """Gives the adapter weights that follow from their names."""
    weights = adapters.weights(model)
    keys = mx.random.split(mx.random.key(_SEED), len(weights))
    pairs = zip(sorted(weights.items()), keys, strict=True)
    adapters.put(model, {n: w + 0.05 * mx.random.normal(w.shape, key=k) for (n, w), k in pairs})
    mx.eval(model.parameters())


def _samples() -> list[np.ndarray[Any, Any]]:
    draw = np.random.default_rng(0)
    return [draw.integers(3, 300, length + 1, np.int32) for length in _LENGTHS]


def _predictions() -> int:
    return sum(_LENGTHS)


def _rows(samples: Sequence[np.ndarray[Any, Any]], *, packed: bool = False) -> Batch:
    """One row of some samples laid end to end."""
    inputs = np.concatenate([sample[:-1] for sample in samples])
    lengths = [len(sample) - 1 for sample in samples]
    numbers = np.repeat(np.arange(len(samples), dtype=np.int32), lengths)
    places = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    return Batch(
        inputs=inputs[None],
        places=np.arange(len(inputs), dtype=np.int32),
        targets=np.concatenate([sample[1:] for sample in samples]),
        weights=np.ones(len(inputs), np.float32),
        segments=numbers[None] if packed else None,
        positions=places[None] if packed else None,
        samples=tuple(range(len(samples))),
        tokens=len(inputs),
        learned=len(inputs),
    )


def _window() -> list[Batch]:
    return [_rows([sample]) for sample in _samples()]


def _number(value: mx.array) -> float:
    return float(value.item())  # type: ignore[arg-type]


def _compare(found: tuple[mx.array, Any], expected: tuple[float, Gradients]) -> None:
    """Raises Wrong where a loss or a gradient differs by more than rounding."""
    loss, gradients = _number(found[0]), dict(tree_flatten(found[1]))
    if not math.isfinite(loss) or abs(loss - expected[0]) > TOLERANCE * abs(expected[0]):
        raise Wrong(f"loss {loss:.5f}, not {expected[0]:.5f}")
    if gradients.keys() != expected[1].keys():
        raise Wrong("the gradient is of other weights")
    length = math.sqrt(sum(_number(g.square().sum()) for g in expected[1].values()))
    off = (_number((gradients[n] - g).square().sum()) for n, g in expected[1].items())
    distance = math.sqrt(sum(off)) / length
    if not distance < TOLERANCE:
        raise Wrong(f"gradient off by {distance:.1e} of its length")


def _equals_plain(
    window: Sequence[Batch] | None = None, **settings: Any
) -> Callable[[Trial], None]:
    """A way whose gradient must be the plain one; the plain one is of `fine_tune_type` alone."""

    def way(trial: Trial) -> None:
        plain = {n: v for n, v in settings.items() if n == "fine_tune_type"}
        made = trial.stepper(**settings)
        _compare(made.gradients(window or _window(), 0), trial.plain(**plain))

    return way


def _chunks(trial: Trial) -> None:
    made = trial.stepper(loss_chunk=8)
    if not made.splits_head:
        raise Without("the head is not split off: the loss is computed whole")
    _compare(made.gradients(_window(), 0), trial.plain())


def _blocks(trial: Trial) -> None:
    with patch.object(attention, "LEAST_WIDTH", 4), patch.object(block_attention, "BLOCK", 16):
        _equals_plain()(trial)


def _dropout(trial: Trial) -> None:
    """The masks of dropout follow from the step alone, also when a layer is computed again."""
    kept = trial.stepper(lora_dropout=0.3).gradients(_window(), 0)
    try:
        again = trial.stepper(lora_dropout=0.3, gradient_checkpointing=True)
    except InvalidSetting:
        again = trial.stepper(lora_dropout=0.3)
    _compare(again.gradients(_window(), 0), (_number(kept[0]), dict(tree_flatten(kept[1]))))


def _resume(trial: Trial) -> None:
    """Three steps, and two steps, a checkpoint, a new process's trainer, and the third: equal."""
    whole = trial.stepper()
    for step in range(2):
        whole.step(_window(), step, 1e-3)
    weights = tree_map(mx.array, adapters.weights(whole.model))
    state = {n: mx.array(v) for n, v in dict(tree_flatten(whole.optimizer.state)).items()}
    expected = whole.step(_window(), 2, 1e-3)
    again = trial.stepper()
    adapters.put(again.model, weights)
    again.restore(state)
    found = again.step(_window(), 2, 1e-3)
    if not expected.finite or (found.loss, found.grad_norm) != (expected.loss, expected.grad_norm):
        raise Wrong(f"loss {found.loss!r} after resuming, not {expected.loss!r}")
    trained = (adapters.weights(made.model) for made in (whole, again))
    pairs = zip(*(weights.values() for weights in trained), strict=True)
    if not all(bool(mx.array_equal(a, b)) for a, b in pairs):
        raise Wrong("other weights after resuming")


def _compiled(trial: Trial) -> None:
    """As the product does it; the other ways go uncompiled, which spares a minute of g++ each."""
    mx.enable_compile()
    try:
        _equals_plain()(trial)
        _resume(trial)
    finally:
        mx.disable_compile()


def _evaluate(trial: Trial) -> None:
    made = trial.stepper(lora_dropout=0.3)
    found, expected = made.evaluate(_window())[0], trial.plain()[0]
    if not abs(found - expected) < TOLERANCE * abs(expected):
        raise Wrong(f"loss {found:.5f}, not {expected:.5f}")


def _generate(trial: Trial) -> None:
    """A few tokens with the adapter on, after a step."""
    made = trial.stepper()
    made.step(_window(), 0, 1e-3)
    made.model.eval()
    prompt = mx.array(_samples()[0])
    found = [int(token) for token, _ in generate_step(prompt, made.model, max_tokens=4)]
    if len(found) != 4:
        raise Wrong(f"{len(found)} tokens")


def _fuse(trial: Trial) -> None:
    loaded = load(str(trial.folder), dequantize=False)
    adapters.attach(loaded.model, _settings(), _SEED)
    _move(loaded.model)
    loaded.model.eval()
    tokens = mx.array(_samples()[0][None])
    expected = loaded.model(tokens)
    mx.eval(expected)
    fuse(loaded.model, loaded.config)
    finite = mx.isfinite(expected)  # some architectures close tokens with -inf
    found, expected = (mx.where(finite, x, 0) for x in (loaded.model(tokens), expected))
    off = mx.abs(found - expected).max() / mx.abs(expected).max()
    if not _number(off) < 10 * TOLERANCE:
        raise Wrong(f"logits off by {_number(off):.1e}")


WAYS: dict[str, Callable[[Trial], None]] = {
    "lora": _equals_plain(),
    "dora": _equals_plain(fine_tune_type="dora"),
    "checkpointing": _equals_plain(gradient_checkpointing=True),
    "chunks": _chunks,
    "packing": _equals_plain([_rows(_samples(), packed=True)], packing=True),
    "blocks": _blocks,
    "dropout": _dropout,
    "resume": _resume,
    "evaluate": _evaluate,
    "generate": _generate,
    "fuse": _fuse,
    "compiled": _compiled,
}

if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    mx.disable_compile()
    sys.exit(main(sys.argv[1:]))

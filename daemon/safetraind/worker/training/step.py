"""One optimizer step: gradients of micro-batches, added up, clipped and applied by AdamW."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_map, tree_map_with_path, tree_reduce

from safetrain_shared.settings import LOSS_CHUNK, TrainingSettings
from safetraind.worker.training import adapters, model_split, rng, short_pass
from safetraind.worker.training.batches import Batch, Batches
from safetraind.worker.training.block_attention import in_blocks
from safetraind.worker.training.gradient_checkpointing import can_recompute, recompute_layers
from safetraind.worker.training.loss import summed_loss
from safetraind.worker.training.packing import Packing
from safetraind.worker.training.ranks import Counts, Ranks
from safetraind.worker.training.recurrence.replacements import in_chunks

Gradients = Any  # a tree of arrays in the shape of the trainable parameters
Arrays = dict[str, mx.array]  # what of a batch goes to the device
# Each trace keeps buffers of its own, of which a Metal device allows 499 000 in all (mlx #4464).
MOST_SHAPES = 96
_DROPOUT = 3  # the stream of dropout keys; `batches` uses 0 to 2


@dataclass(frozen=True, slots=True)
class Stepped:
    """The result of one optimizer step.

    `loss`: mean over the `learned` predictions that count. `tokens`: real ones, without padding.
    `seconds`: its whole time, of which `update_seconds` to apply the gradient. Where loss or
    gradient are not `finite`, nothing was changed.
    """

    finite: bool
    loss: float
    grad_norm: float
    learned: int
    tokens: int
    samples: int
    seconds: float
    update_seconds: float = 0.0


_NOTHING = Stepped(True, 0.0, 0.0, learned=0, tokens=0, samples=0, seconds=0.0)


class Stepper:
    """A model with its adapter, its optimizer, and the compiled functions that train it."""

    def __init__(
        self,
        model: nn.Module,
        settings: TrainingSettings,
        seed: int,
        ranks: Ranks | None = None,
    ) -> None:
        """Put a new adapter on `model`. Raises InvalidSetting where the settings don't suit it.

        `ranks`: those that share each step with this process; None: it trains alone.
        """
        self.model = model
        self._ranks = ranks
        self._seed = seed
        self._chunk = settings.loss_chunk
        # Then the first micro-batch is added to zeros: without, MLX keeps a trace for it alone. A
        # probe changes it from setup to setup.
        self.accumulates = settings.gradient_accumulation > 1
        self._max_norm = settings.max_grad_norm
        self._keys = adapters.attach(model, settings, seed)
        self._dropouts = adapters.dropouts(model)
        short_pass.check(model)
        self._split = model_split.split(model)
        # Every mask of mlx-lm's models is causal (`make architectures`); other code may see ahead.
        self._causal = type(model).__module__.startswith("mlx_lm.models.")
        self._packing = Packing(model) if settings.packing else None
        if settings.gradient_checkpointing:
            recompute_layers(model)
        # Adam's moments begin at zero; without the correction its first steps are three times too
        # long (Kingma and Ba 2015, section 3).
        self.optimizer = optim.AdamW(
            settings.learning_rate, weight_decay=settings.weight_decay, bias_correction=True
        )
        self.optimizer.init(model.trainable_parameters())
        self._compile()
        model.train()

    @property
    def splits_head(self) -> bool:
        """Whether the loss can be computed in chunks: the model's head can be split off."""
        return self._split.chunks

    def step(self, window: Sequence[Batch], number: int, learning_rate: float) -> Stepped:
        """Train on one window as if it were one large batch; `number` counts optimizer steps.

        With several ranks `window` is this rank's share of it; see `Ranks.add` for what is raised.
        A window whose loss or gradient is not finite changes nothing, nor does an empty one.
        """
        if not window and self._ranks is None:
            return _NOTHING
        start = time.perf_counter()
        counts = Counts.of(window)
        loss, gradients = self.gradients(window, number) if window else self._no_gradients()
        if self._ranks is not None:
            weights = self.model.trainable_parameters()
            loss, gradients, counts = self._ranks.add(loss, gradients, counts, number, weights)
            if not counts.learned:
                return _NOTHING
        computed = time.perf_counter()
        norm = _norm(gradients)
        mean, length = _number(loss), _number(norm)
        finite = math.isfinite(mean) and math.isfinite(length)
        if finite:
            self.optimizer.learning_rate = mx.array(learning_rate)
            self._apply(gradients, norm)
            mx.eval(self.model.trainable_parameters(), self.optimizer.state)
        end = time.perf_counter()
        return Stepped(
            finite=finite,
            loss=mean,
            grad_norm=length,
            learned=counts.learned,
            tokens=counts.tokens,
            samples=counts.samples,
            seconds=end - start,
            update_seconds=end - computed,
        )

    def loss_and_norm(self, window: Sequence[Batch], number: int) -> tuple[float, float]:
        """Return the mean loss of a window and the norm of its gradient. Nothing is changed."""
        loss, gradients = self.gradients(window, number)
        return _number(loss), _number(_norm(gradients))

    def fallbacks(self, batches: Batches) -> dict[str, bool]:
        """Return, by setting, whether it would save memory here if it were turned on. See
        `scheduler.oom_fallback`.

        The loss in chunks does where the head can be computed in pieces, and has more to compute.
        """
        chunks = self._split.chunks and batches.most_predictions > LOSS_CHUNK
        return {"gradient_checkpointing": can_recompute(self.model), "loss_chunk": chunks}

    def gradients(self, window: Sequence[Batch], number: int) -> tuple[mx.array, Gradients]:
        """Return the mean loss of a window, a float32 scalar, and its gradient by weight name,
        added up over its micro-batches.

        Each micro-batch counts by its share of the window's predictions, so that tokens weigh
        equally however the window is cut. Dropout follows from the seed, `number` (optimizer steps
        done before) and the micro-batch's place.
        """
        share = mx.array(1 / sum(batch.learned for batch in window))
        loss, gradients = self._no_gradients() if self.accumulates else (mx.array(0.0), None)
        for place, batch in enumerate(window):
            if self._ranks is not None:
                place = place * self._ranks.size + self._ranks.rank
            key = mx.random.key(rng.number(self._seed, _DROPOUT, number, place))
            arrays = self._arrays(batch)
            with _refusing():
                part, gradients = self._accumulate(arrays, key, share, gradients)
            loss = loss + part
            mx.eval(loss, gradients)  # the activations of one micro-batch at a time
        return loss, gradients

    def evaluate(self, batches: Iterable[Batch]) -> tuple[float, int]:
        """Return the mean loss per prediction that counts, without dropout, and the number of
        samples.
        """
        total, learned, samples = 0.0, 0, 0
        self.model.eval()
        for batch in batches:
            arrays = self._arrays(batch)
            with _refusing():
                loss = self._evaluate(arrays)
            total += _number(loss)
            learned += batch.learned
            samples += len(batch.samples)
        self.model.train()
        return total / max(1, learned), samples

    def restore(self, optimizer_state: dict[str, mx.array]) -> None:
        """Set the optimizer's state, by name. Raises KeyError where an array is missing.

        The functions are compiled anew, because they capture the arrays of that moment.
        """
        self.optimizer.state = tree_map_with_path(
            lambda name, _: optimizer_state[name], self.optimizer.state
        )
        self.optimizer.init(self.model.trainable_parameters())
        mx.eval(self.optimizer.state, self.model.trainable_parameters())
        self._compile()

    def leave(self, number: int) -> None:
        """Have each rank leave before optimizer step `number`, to which all of them come."""
        if self._ranks is not None:
            self._ranks.leave(self.model.trainable_parameters(), number)

    def _no_gradients(self) -> tuple[mx.array, Gradients]:
        """Return loss and gradient of no samples: zeros.

        They are there from the start, so that a window's peak memory does not depend on the place
        of its heaviest micro-batch.
        """
        gradients = tree_map(mx.zeros_like, self.model.trainable_parameters())
        mx.eval(gradients)
        return mx.array(0.0), gradients

    def _arrays(self, batch: Batch) -> Arrays:
        """Return a batch on the device. All traces are dropped before they become one too many."""
        arrays = _on_device(batch)
        self._shapes.add(tuple(sorted((name, array.shape) for name, array in arrays.items())))
        if len(self._shapes) > MOST_SHAPES:
            self._compile()
        return arrays

    def _compile(self) -> None:
        """Compile anew, without a trace yet. MLX keeps a trace for each shape of a batch."""
        self._shapes: set[tuple[Any, ...]] = set()
        state = [self.model.state, self.optimizer.state, mx.random.state]
        compiled = partial(mx.compile, inputs=state, outputs=state)
        loss_and_gradients = nn.value_and_grad(self.model, self._loss)

        @compiled
        def accumulate(
            arrays: Arrays, key: mx.array, weight: mx.array, gradients: Gradients
        ) -> tuple[mx.array, Gradients]:
            with self._handing(arrays, key):
                loss, new = loss_and_gradients(arrays, weight)
            return loss, new if gradients is None else tree_map(mx.add, gradients, new)

        @compiled
        def apply(gradients: Gradients, norm: mx.array) -> None:
            if self._max_norm:
                scale = mx.minimum(1.0, self._max_norm / (norm + 1e-6))
                gradients = tree_map(lambda g: g * scale.astype(g.dtype), gradients)
            self.optimizer.update(self.model, gradients)

        @compiled
        def evaluate(arrays: Arrays) -> mx.array:
            with self._handing(arrays, None):
                return self._loss(arrays, mx.array(1.0))

        self._accumulate, self._apply, self._evaluate = accumulate, apply, evaluate

    def _loss(self, arrays: Arrays, weight: mx.array) -> mx.array:
        rows = {name: arrays[name] for name in ("inputs", "places", "targets", "weights")}
        cache = None
        if self._packing and "segments" in arrays:
            cache = self._packing.caches(arrays["segments"])
        chunk = self._chunk if self._split.chunks else 0
        learns = self.model.training
        return summed_loss(self._split, **rows, cache=cache, chunk=chunk, learns=learns) * weight

    @contextmanager
    def _handing(self, arrays: Arrays, key: mx.array | None) -> Iterator[None]:
        """Give the layers dropout keys and positions for the forward and backward pass."""
        if key is not None and self._dropouts:
            self._keys.rows = mx.random.split(key, self._dropouts)
        at = self._packing.at(arrays.get("positions")) if self._packing else nullcontext()
        chunks = in_chunks(arrays.get("segments"))
        blocks = in_blocks(causal_masks=self._causal, learns=self.model.training)
        try:
            with at, chunks, blocks:
                yield
        finally:
            self._keys.rows = None


def _on_device(batch: Batch) -> Arrays:
    """Return the arrays of a batch by name; segments and positions only where it is packed."""
    names = ("inputs", "places", "targets", "weights", "segments", "positions")
    found = {name: getattr(batch, name) for name in names}
    return {name: mx.array(values) for name, values in found.items() if values is not None}


def _norm(gradients: Gradients) -> mx.array:
    """Return the norm of all gradients taken as one vector, float32."""
    squares = tree_map(lambda g: g.astype(mx.float32).square().sum(), gradients)
    return mx.sqrt(tree_reduce(mx.add, squares, mx.array(0.0)))


@contextmanager
def _refusing() -> Iterator[None]:
    """Raise InvalidSetting where a model's own code reads values while MLX compiles it, which ends
    in ValueError: "[eval] Attempting to eval an array during function transformations".
    """
    try:
        yield
    except ValueError as error:
        raise short_pass.impossible(error) from error


def _number(scalar: mx.array) -> float:
    return float(scalar.item())  # type: ignore[arg-type]  # mlx's stubs allow complex numbers

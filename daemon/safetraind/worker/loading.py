"""Loads a model for training, probing and inference, and attaches and detaches adapters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import (
    dequantize_model,
    get_total_parameters,
    load_adapters,
    load_config,
    load_model,
    load_tokenizer,
)

from safetrain_shared.errors import InvalidInput, NotFound, SafetrainError
from safetraind import host
from safetraind.worker import config_keys
from safetraind.worker.hub import snapshot

# First lines of errors of mlx.nn.Module.load_weights (0.32); the parameters' names follow.
_PARAMETERS = {
    "model.parameters_missing": re.compile(r"Missing (\d+) parameters:"),
    "model.parameters_foreign": re.compile(r"Received (\d+) parameters not in model:"),
}
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapters.safetensors"
_OF_ADAPTER = ("lora_a", "lora_b", "m")  # the weights of mlx-lm's LoRA and DoRA layers


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to compute, its tokenizer, and the folder it came from."""

    model: nn.Module
    tokenizer: TokenizerWrapper
    config: dict[str, Any]
    folder: Path

    @property
    def vocabulary(self) -> int:
        """The number of rows of the embedding, which is the number of tokens."""
        embeddings = (nn.Embedding, nn.QuantizedEmbedding)
        tables = [m for m in self.model.modules() if isinstance(m, embeddings)]
        return max((int(table.weight.shape[0]) for table in tables), default=0)


def load(
    path: str, *, dequantize: bool | None = None, trust_remote_code: bool = False
) -> LoadedModel:
    """Load the model `path` (a folder, or a hub repository's id), in evaluation mode.

    The weights are evaluated. `dequantize` makes every weight float32, which is many times faster
    on a CPU; None does so as `worth_dequantizing` decides. Code that came with a model runs only
    with `trust_remote_code`.

    Raises what `hub.snapshot` raises, NotFound for a missing folder, InvalidInput for one that
    doesn't load, and RuntimeError, as MLX does, where memory runs out. Dequantizing advances MLX's
    global random state: seed after loading.
    """
    folder = model_folder(path)
    extra = {"trust_remote_code": True} if trust_remote_code else None
    try:
        reading = config_keys.read(load_config(folder))
        model, config = load_model(
            folder,
            lazy=True,
            model_config=dict(reading.overrides),
            trust_remote_code=trust_remote_code,
        )
        tokenizer = load_tokenizer(folder, extra, eos_token_ids=config.get("eos_token_id"))
    except (Exception, SystemExit) as error:  # a model's own code may do anything, even exit
        if isinstance(error, SafetrainError | MemoryError):
            raise
        raise _not_loaded(folder, error, trusted=trust_remote_code) from error
    if reading.lost:
        names = ", ".join(reading.lost)
        raise InvalidInput("model.keys_lost", path=str(folder), names=names)
    if worth_dequantizing(model) if dequantize is None else dequantize:
        _to_float32(model)
    mx.eval(model.parameters())
    return LoadedModel(model, tokenizer, config, folder)


def model_folder(path: str) -> Path:
    """Return the folder of a model given as one, or as the id of a hub repository.

    Raises NotFound for a missing folder, and what `hub.snapshot` raises.
    """
    folder = Path(path) if Path(path).is_absolute() else snapshot(path)
    if not folder.is_dir():
        raise NotFound("path.missing", path=str(folder))
    return folder


def _not_loaded(folder: Path, error: BaseException, *, trusted: bool) -> InvalidInput:
    """Return the error for a model that does not load, from mlx-lm's error."""
    path, text = str(folder), str(error)
    if "model_file" in _raw_config(folder) and not trusted:
        return InvalidInput("model.needs_remote_code", path=path)
    for code, pattern in _PARAMETERS.items():
        if found := pattern.match(text):
            names = [name.strip(" ,.") for name in text[found.end() :].splitlines()]
            named = [name for name in names if name]
            shown = ", ".join(named[:3]) + (" …" if len(named) > 3 else "")
            return InvalidInput(code, path=path, count=int(found[1]), names=shown)
    return InvalidInput("model.does_not_load", path=path, reason=_first_line(error))


def worth_dequantizing(model: nn.Module) -> bool:
    """Return whether to compute in float32: on a CPU, if the weights take at most half the free
    memory.
    """
    if mx.default_device() != mx.Device(mx.cpu):
        return False
    return 4 * get_total_parameters(model) <= host.gather().memory_available // 2


def item_bytes(model: nn.Module) -> int:
    """Return the bytes of the floating-point type that the model computes in.

    That is the widest type of the base's weights. An adapter's weights do not count: DoRA's
    magnitudes are always float32.
    """
    weights: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    of_adapter = {f"{name}.{own}" for name, _, _ in _adapted(model) for own in _OF_ADAPTER}
    own = [value.dtype for name, value in weights.items() if name not in of_adapter]
    return max((dtype.size for dtype in own if mx.issubdtype(dtype, mx.floating)), default=4)


def attach_adapter(model: nn.Module, folder: Path) -> None:
    """Attach the LoRA or DoRA adapter in `folder` (mlx-lm's format) to `model`, for inference.

    Raises NotFound where there is none, InvalidInput where it doesn't fit this model or lacks
    weights.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        raise NotFound("adapter.missing", path=str(folder))
    try:
        load_adapters(model, str(folder))
        _check_complete(model, folder / ADAPTER_WEIGHTS)
        mx.eval(model.parameters())
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        detach_adapter(model)
        reason = _first_line(error)
        raise InvalidInput("adapter.unusable", path=str(folder), reason=reason) from error
    model.eval()


def _check_complete(model: nn.Module, weights: Path) -> None:
    """Raise ValueError where an adapter layer has a weight that the file lacks.

    mlx-lm leaves such a weight as it begins, and a layer with it may be the base's.
    """
    names: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    needed = {name for name in names if name.rpartition(".")[2] in _OF_ADAPTER}
    if lacking := sorted(needed - set(mx.load(str(weights)))):
        raise ValueError(f"{weights.name} lacks {lacking[0]} ({len(lacking)} of {len(needed)})")


def detach_adapter(model: nn.Module) -> None:
    """Remove every LoRA and DoRA layer from `model`, which is then the base again."""
    _update_modules(model, [(name, base) for name, _, base in _adapted(model)])


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """Make `model` the base inside the block, and restore the same adapter layers after it.

    Each adapter layer is replaced by the layer that it wraps. (Setting the scale to zero would not
    disable DoRA, whose trained magnitudes apply regardless of the scale.)
    """
    adapted = _adapted(model)
    _update_modules(model, [(name, base) for name, _, base in adapted])
    try:
        yield
    finally:
        _update_modules(model, [(name, wrapper) for name, wrapper, _ in adapted])


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off inside the block, and restore the mode of each layer after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module._set_training_mode(training)


def _to_float32(model: nn.Module) -> None:
    model.set_dtype(mx.float32)  # scales and biases first, so that no weight is rounded to 16 bits
    dequantize_model(model)


def _adapted(model: nn.Module) -> list[tuple[str, nn.Module, nn.Module]]:
    """Return the adapter layers: name, layer, and the base layer inside it."""
    return [
        (name, module, module.linear if "linear" in module else module.embedding)
        for name, module in model.named_modules()
        if "lora_a" in module and ("linear" in module or "embedding" in module)
    ]


def _update_modules(model: nn.Module, modules: list[tuple[str, nn.Module]]) -> None:
    if modules:
        model.update_modules(tree_unflatten(modules))


def _raw_config(folder: Path) -> str:
    try:
        return (folder / "config.json").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    known = lines and isinstance(error, Exception)  # SystemExit has only a number
    return lines[0] if known else type(error).__name__

"""Converts a GGUF file into a model folder that mlx-lm loads: `convert GGUF FOLDER [DOCUMENT…]`.

Runs as a child of the daemon without the GPU lease, so everything happens on the CPU device.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm

from safetrain_shared.codec import to_plain
from safetrain_shared.errors import InvalidInput, NoRoom, SafetrainError, error_to_dict
from safetraind.storage.durable import clear, sync_folder
from safetraind.storage.manifest import sha256, write_manifest
from safetraind.worker.convert.gguf_reader import Gguf, model_config, model_weights, read_gguf
from safetraind.worker.convert.gguf_tokenizer import build_tokenizer, tokenizer_config
from safetraind.worker.exchange import disk_error
from safetraind.worker_messages.role import WorkerProgress

OnProgress = Callable[[str, float], None]
"""Called with a phase (`converting`, `checking`) and the progress in it, 0 to 1."""


def convert_gguf(
    gguf: Path, folder: Path, *, documents: Sequence[Path] = (), progress: OnProgress | None = None
) -> None:
    """Convert the llama-architecture file `gguf` (F32, F16, Q4_0, Q4_1, Q8_0) into `folder`.

    The quantization is kept: 4 or 8 bits, 32 weights to a group. Scales, norms and weights that are
    not quantized are in `working_type()`. `documents` (a licence, a README) are copied. The files
    are written to `folder.partial`, which is renamed once it is complete and has computed one
    token; an existing `folder` is replaced.

    Raises InvalidInput for a file that can't be converted faithfully, OSError for a disk error.
    """
    report = progress or (lambda _phase, _done: None)
    partial = folder.with_name(f"{folder.name}.partial")
    clear(partial)
    partial.mkdir(parents=True)
    try:
        report("converting", 0.0)
        source = read_gguf(gguf)
        _write_model(source, partial)
        for document in documents:
            shutil.copyfile(document, partial / document.name)
        report("checking", 0.0)
        _check(partial)
        licence = source.metadata.get("general.license", "")
        about = {"source": gguf.name, "source_sha256": sha256(gguf), "licence": licence}
        write_manifest(partial, about)
        _replace(partial, folder)
        report("checking", 1.0)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def working_type() -> mx.Dtype:
    """Return the type that this machine computes a converted model in.

    On a GPU that is bfloat16, whose range no activation exceeds; on a CPU float32. A quantized
    model of 135 million weights takes 4 seconds for 45 tokens there in float32, 34 in bfloat16 and
    240 in float16 (measured on two x86-64 cores, mlx 0.32.4).
    """
    return mx.bfloat16 if mx.is_available(mx.gpu) else mx.float32


def main(arguments: Sequence[str]) -> int:
    """Convert, printing JSON lines: progress, and an error as class, code and arguments. Return the
    exit code, 0 for success.
    """
    mx.set_default_device(mx.cpu)
    gguf, folder, *documents = map(Path, arguments)
    try:
        convert_gguf(gguf, folder, documents=documents, progress=_print_progress)
    except SafetrainError as error:
        _print_line({"error": error_to_dict(error)})
        return error.exit_code
    except OSError as error:
        _print_line({"error": error_to_dict(disk_error(error, str(folder)))})
        return NoRoom.exit_code
    return 0


def _write_model(source: Gguf, folder: Path) -> None:
    dtype = working_type()
    config = model_config(source, dtype)
    tokenizer = build_tokenizer(source)
    weights = model_weights(source, config, dtype)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "config.json", config)
    _write_json(folder / "tokenizer_config.json", tokenizer_config(source))
    ends = {key: value for key, value in config.items() if key.endswith("_token_id")}
    _write_json(folder / "generation_config.json", ends)


def _check(folder: Path) -> None:
    """Load `folder` as mlx-lm does and compute one token of it."""
    try:
        model, tokenizer = mlx_lm.load(str(folder))
    except ValueError as error:  # parameters with other names or shapes than a llama's
        raise InvalidInput("gguf.incomplete", missing=str(error).splitlines()[0]) from error
    model.set_dtype(mx.float32)  # 16-bit arithmetic on the CPU is far slower
    logits = model(mx.array([tokenizer.encode("Faro")]))
    if not mx.isfinite(logits).all().item():
        raise InvalidInput("gguf.not_finite")


def _replace(partial: Path, folder: Path) -> None:
    """Replace `folder` by `partial`; at every moment there is a complete folder or none."""
    old = folder.with_name(f"{folder.name}.old")
    clear(old)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _write_json(file: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    file.write_text(f"{text}\n", encoding="utf-8")


def _print_progress(phase: str, done: float) -> None:
    _print_line(to_plain(WorkerProgress(phase, done)))


def _print_line(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()

"""The role `export`: fuses an adapter into a model folder for other programs.

Reads `export_request.json` in the run's folder: `model` (a folder or a hub id), `adapter` and
`output` (folders), and optionally `valid` (a training file to take questions from), `gguf`,
`dequantize`, `trust_remote_code`, `about` (kept in the manifest). Adds {"phase", "done"} lines to
`probe.json.partial` and writes the result, or {"error": …}, to `probe.json`.
"""

from __future__ import annotations

import errno
import gc
import json
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.utils import DEFAULT_ALLOW_PATTERNS, save_config, save_model

from safetrain_shared.errors import (
    Blocked,
    Broken,
    InvalidInput,
    NoRoom,
    SafetrainError,
    error_to_dict,
)
from safetrain_shared.paths import RunFolder
from safetraind import host
from safetraind.storage.durable import read_json, sync_folder, write_json
from safetraind.storage.export_folder import check_free, check_room, partial_of
from safetraind.storage.manifest import NAME as MANIFEST
from safetraind.storage.manifest import write_manifest
from safetraind.worker.data.thinking import GIVEN
from safetraind.worker.export import gguf_writer, modelfile
from safetraind.worker.export.agreement import Agreement, Reference, ask_both
from safetraind.worker.export.fuse import BITS, fuse, fused_bytes
from safetraind.worker.loading import LoadedModel, attach_adapter, load
from safetraind.worker.training.outcome import is_out_of_memory

REQUEST = "export_request.json"
GGUF = "model.gguf"
_SPARE = 256 << 20
"""Memory for the compared logits and for the process itself, bytes."""

EmitEvent = Callable[[str, float], None]
"""Called with a phase (loading, asking, fusing, checking, gguf) and the total progress, 0 to 1."""


def main(arguments: Sequence[str]) -> int:
    """Export as the request in the run folder says; an error is a result, and the exit code 0."""
    run = RunFolder(Path(arguments[0]))
    request = read_json(run.root / REQUEST)
    with run.probe.with_name(f"{run.probe.name}.partial").open("w", encoding="utf-8") as file:

        def emit(phase: str, done: float) -> None:
            file.write(json.dumps({"phase": phase, "done": done}) + "\n")
            file.flush()

        write_json(run.probe, _outcome(request, emit))
    return 0


def _outcome(request: dict[str, Any], emit: EmitEvent) -> dict[str, Any]:
    try:
        return export(request, emit)
    except SafetrainError as error:
        return {"error": error_to_dict(error)}
    except OSError as error:
        return {"error": error_to_dict(_disk_error(error, request["output"]))}
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            return {"error": error_to_dict(Blocked("export.out_of_memory"))}
        traceback.print_exc(file=sys.stderr)
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        failed = InvalidInput("export.failed", path=str(request["model"]), reason=reason)
        return {"error": error_to_dict(failed)}


def export(request: dict[str, Any], emit: EmitEvent) -> dict[str, Any]:
    """Write the output folder, which must be empty or missing, and return its description.

    The files are written to a folder beside it, which is renamed once the fused model was found to
    answer as the adapter does. Raises Conflict where the output is taken, Blocked where there is
    too little memory or the fused model differs, NoRoom, and what loading raises.
    """
    output = Path(request["output"])
    check_free(output)
    partial = partial_of(output)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        emit("loading", 0.0)
        result = _Exporter(request, emit, partial).run()
        write_manifest(partial, {**request.get("about", {}), "export": result})
        if output.is_dir():
            output.rmdir()
        partial.rename(output)
        sync_folder(output.parent)
        return _with_final_paths(result, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@dataclass
class _Exporter:
    """One export in progress: its request and the folder that it fills."""

    request: dict[str, Any]
    emit: EmitEvent
    folder: Path

    def run(self) -> dict[str, Any]:
        """Fill the folder and return its description."""
        reference, quantized = self._reference()
        result = self._model(reference, quantized)
        result["gguf"] = self._gguf(reference) if self.request.get("gguf") else None
        gguf = GGUF if result["gguf"] else ""
        result["modelfile"] = modelfile.write(self.folder, gguf, self._thinking)
        self.emit("checking", 1.0)
        return result

    def _reference(self) -> tuple[Reference, bool]:
        """Return the answers of base and adapter, and whether the base is quantized."""
        loaded = self._load(dequantize=None)
        if self.request.get("gguf"):
            gguf_writer.check_takes(loaded.config, loaded.folder)
        self.emit("asking", 0.1)
        valid = self.request.get("valid", "")
        reference = ask_both(loaded.model, loaded.tokenizer, valid, self._thinking)
        quantized = "quantization" in loaded.config
        del loaded
        _free_memory()
        return reference, quantized

    def _model(self, reference: Reference, quantized: bool) -> dict[str, Any]:
        """Write the folder for mlx-lm, with the fewest bits that agree. Raises Blocked."""
        quantized = quantized and not self.request.get("dequantize", False)
        agreement = None
        for bits in BITS if quantized else BITS[-1:]:
            self.emit("fusing", 0.3)
            self._write(bits)
            self.emit("checking", 0.5)
            agreement = self._check(reference)
            if agreement.good:
                return {"quantized": quantized, "bits": bits, "agreement": agreement.as_dict()}
        assert agreement is not None
        raise Blocked("export.differs", **agreement.as_dict())

    def _write(self, bits: int) -> None:
        dequantize = bool(self.request.get("dequantize", False))
        loaded = self._load(dequantize=False)
        self._check_resources(fused_bytes(loaded.model, bits=bits, dequantize=dequantize))
        config = fuse(loaded.model, loaded.config, bits=bits, dequantize=dequantize)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        save_model(self.folder, loaded.model, donate_model=True)
        save_config(config, self.folder / "config.json")
        _copy_other_files(loaded.folder, self.folder)
        del loaded
        _free_memory()

    def _check(self, reference: Reference) -> Agreement:
        trusted = bool(self.request.get("trust_remote_code", False))
        fused = load(str(self.folder), trust_remote_code=trusted)
        try:
            return reference.compare(fused.model)
        finally:
            del fused
            _free_memory()

    def _gguf(self, reference: Reference) -> dict[str, Any]:
        """Write one GGUF file for llama.cpp and programs built on it, in 16 bits."""
        self.emit("gguf", 0.7)
        loaded = self._load(dequantize=False)
        self._check_resources(fused_bytes(loaded.model, dequantize=True))
        config = fuse(loaded.model, loaded.config, dequantize=True)
        file = self.folder / GGUF
        gguf_writer.write(file, loaded.model, config, loaded.folder, loaded.tokenizer)
        del loaded
        _free_memory()
        self.emit("checking", 0.85)
        agreement = reference.compare(gguf_writer.read_back(file))
        if not agreement.good:
            raise Broken("export.differs", **agreement.as_dict())
        return {"path": GGUF, "agreement": agreement.as_dict()}

    @property
    def _thinking(self) -> str:
        """The setting of that name of the training."""
        return str(self.request.get("thinking", GIVEN))

    def _load(self, *, dequantize: bool | None) -> LoadedModel:
        """Load the base with the adapter attached."""
        trusted = bool(self.request.get("trust_remote_code", False))
        path = self.request["model"]
        loaded = load(path, dequantize=dequantize, trust_remote_code=trusted)
        attach_adapter(loaded.model, Path(self.request["adapter"]))
        return loaded

    def _check_resources(self, need: int) -> None:
        """Raise Blocked or NoRoom unless `need` bytes fit in memory and on the disk."""
        available = host.gather().memory_available
        if need + _SPARE > available:
            raise Blocked("export.no_memory", need=need + _SPARE, available=available)
        check_room(self.folder, need)


def _copy_other_files(source: Path, target: Path) -> None:
    """Copy tokenizer, chat template, licence: all files of a model folder but its weights."""
    ours = {"config.json", MANIFEST, "model.safetensors.index.json"}
    for pattern in (*DEFAULT_ALLOW_PATTERNS, "LICENSE*"):
        for file in source.glob(pattern):
            if file.name not in ours and file.suffix != ".safetensors":
                shutil.copyfile(file, target / file.name)


def _free_memory() -> None:
    gc.collect()
    mx.clear_cache()


def _with_final_paths(result: dict[str, Any], output: Path) -> dict[str, Any]:
    """Return the result with the paths and the size of the renamed folder."""
    gguf = result["gguf"] and {**result["gguf"], "path": str(output / GGUF)}
    return {**result, "path": str(output), "bytes": _size(output), "gguf": gguf}


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _disk_error(error: OSError, path: str) -> NoRoom:
    if error.errno == errno.ENOSPC:
        return NoRoom("disk.full", path=path)
    return NoRoom("disk.refused", path=path, reason=error.strerror or str(error))

"""The worker role `export`: fuses an adapter into a model folder for other programs.

`worker_messages.export_messages` has its request and its result.
"""

from __future__ import annotations

import dataclasses
import gc
import shutil
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mlx.core as mx
from mlx_lm.utils import DEFAULT_ALLOW_PATTERNS, save_config, save_model

from safetrain_shared.codec import to_plain
from safetrain_shared.errors import Blocked, InvalidInput
from safetrain_shared.gguf_types import GGUF_TYPES
from safetraind import host
from safetraind.storage.durable import empty, sync_folder
from safetraind.storage.export_folder import check_free, check_room, partial_of
from safetraind.storage.folder_lock import temporary
from safetraind.storage.manifest import NAME as MANIFEST
from safetraind.storage.manifest import write_manifest
from safetraind.worker.exchange import Tell, answer, read_request
from safetraind.worker.export import gguf_writer, modelfile
from safetraind.worker.export.agreement import Reference, ask_both
from safetraind.worker.export.four_bits import four_bit_matrices
from safetraind.worker.export.fuse import BITS, fuse, fused_bytes
from safetraind.worker.loading import LoadedModel, attach_adapter, load, model_folder
from safetraind.worker.training.outcome import is_out_of_memory
from safetraind.worker_messages.export_messages import (
    EXPORT,
    Agreement,
    Exported,
    ExportRequest,
    GgufFile,
)
from safetraind.worker_messages.role import WorkerProgress

GGUF = "model.gguf"
_SPARE = 256 << 20
"""Memory for the compared logits and for the process itself, bytes."""


def main(arguments: Sequence[str]) -> int:
    """Export as the request in the run folder says. An error is a result too, and the exit code is
    0.
    """
    request = read_request(arguments[0], EXPORT.name, ExportRequest)
    answer(arguments[0], partial(_outcome, request), output=request.output)
    return 0


def _outcome(request: ExportRequest, tell: Tell) -> Exported:
    try:
        return export(request, tell)
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise Blocked("export.out_of_memory") from error
        traceback.print_exc(file=sys.stderr)
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        raise InvalidInput("export.failed", path=request.model, reason=reason) from error


def export(request: ExportRequest, tell: Tell) -> Exported:
    """Write the output folder, which must be empty or missing, and return its description.

    The files are written to a folder beside it, which is renamed once the fused model was found to
    answer as the adapter does. Raises Conflict where the output is taken, Busy where another
    process writes it, Blocked where there is too little memory or the fused model differs, NoRoom,
    and what loading raises.
    """
    output = Path(request.output)
    check_free(output)
    unfinished = partial_of(output)
    with temporary(unfinished):
        tell(WorkerProgress("loading", 0.0))
        result = _Exporter(request, tell, unfinished).run()
        about = to_plain(request.about) if request.about else {}
        write_manifest(unfinished, {**about, "export": to_plain(result)})
        if output.is_dir():
            output.rmdir()
        unfinished.rename(output)
        sync_folder(output.parent)
        return _with_final_paths(result, output)


@dataclass
class _Exporter:
    """One export in progress: its request and the folder that it fills."""

    request: ExportRequest
    tell: Tell
    folder: Path

    def run(self) -> Exported:
        """Fill the folder and return its description."""
        if self.request.gguf:
            gguf_writer.check_takes(model_folder(self.request.model), self.request.gguf_type)
        reference, quantized = self._reference()
        result = self._model(reference, quantized)
        gguf = self._gguf(reference) if self.request.gguf else None
        name, thinking = GGUF if gguf else "", self.request.thinking
        has_modelfile = modelfile.write(self.folder, name, thinking)
        self._progress("checking", 1.0)
        return dataclasses.replace(result, gguf=gguf, modelfile=has_modelfile)

    def _progress(self, phase: str, done: float) -> None:
        """Report the phase (loading, asking, fusing, checking, gguf) and the total progress, 0 to
        1.
        """
        self.tell(WorkerProgress(phase, done))

    def _reference(self) -> tuple[Reference, bool]:
        """Return the answers of base and adapter, and whether the base is quantized."""
        loaded = self._load(dequantize=None)
        self._progress("asking", 0.1)
        valid, thinking = self.request.valid, self.request.thinking
        reference = ask_both(loaded.model, loaded.tokenizer, valid, thinking)
        quantized = "quantization" in loaded.config
        del loaded
        _free_memory()
        return reference, quantized

    def _model(self, reference: Reference, quantized: bool) -> Exported:
        """Write the folder for mlx-lm, with the fewest bits that agree. Raises Blocked."""
        quantized = quantized and not self.request.dequantize
        agreement = None
        for bits in BITS if quantized else BITS[-1:]:
            self._progress("fusing", 0.3)
            self._write(bits)
            self._progress("checking", 0.5)
            agreement = self._check(reference)
            if agreement.good:
                return Exported(quantized, bits, agreement)
        assert agreement is not None
        raise Blocked("export.differs", **dataclasses.asdict(agreement))

    def _write(self, bits: int) -> None:
        dequantize = self.request.dequantize
        loaded = self._load(dequantize=False)
        self._check_resources(fused_bytes(loaded.model, bits=bits, dequantize=dequantize))
        config = fuse(loaded.model, loaded.config, bits=bits, dequantize=dequantize)
        empty(self.folder)
        save_model(self.folder, loaded.model, donate_model=True)
        save_config(config, self.folder / "config.json")
        _copy_other_files(loaded.folder, self.folder)
        del loaded
        _free_memory()

    def _check(self, reference: Reference) -> Agreement:
        trusted = self.request.trust_remote_code
        fused = load(str(self.folder), trust_remote_code=trusted)
        try:
            return reference.compare(fused.model)
        finally:
            del fused
            _free_memory()

    def _gguf(self, reference: Reference) -> GgufFile:
        """Write one GGUF file for llama.cpp and programs built on it, and check it."""
        stored = self.request.gguf_type
        self._progress("gguf", 0.7)
        loaded = self._load(dequantize=False)
        self._check_resources(fused_bytes(loaded.model, dequantize=True))
        four_bits = four_bit_matrices(loaded.model)
        config = fuse(loaded.model, loaded.config, dequantize=True)
        file = self.folder / GGUF
        about = (config, loaded.folder, loaded.tokenizer, stored, four_bits)
        gguf_writer.write(file, loaded.model, *about)
        del loaded, four_bits, about
        _free_memory()
        self._progress("checking", 0.85)
        agreement = reference.compare(gguf_writer.read_back(file, config, stored))
        if not (agreement.good if stored == GGUF_TYPES[0] else agreement.good_for_rounded):
            raise Blocked("export.gguf_differs", type=stored, **dataclasses.asdict(agreement))
        return GgufFile(GGUF, agreement, stored)

    def _load(self, *, dequantize: bool | None) -> LoadedModel:
        """Load the base with the adapter attached."""
        trusted = self.request.trust_remote_code
        path = self.request.model
        loaded = load(path, dequantize=dequantize, trust_remote_code=trusted)
        attach_adapter(loaded.model, Path(self.request.adapter))
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


def _with_final_paths(result: Exported, output: Path) -> Exported:
    """Return the result with the paths and the size of the renamed folder."""
    gguf = result.gguf and dataclasses.replace(result.gguf, path=str(output / GGUF))
    return dataclasses.replace(result, path=str(output), bytes=_size(output), gguf=gguf)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

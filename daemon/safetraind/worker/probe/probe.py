"""The worker role `probe`: tries the device, the model, and real training steps, and measures them.

Reads `probe_request.json` in its run folder: {"model", "trust_remote_code", "setups": [{"settings",
"rows", "width", "learned", "valid_width", "valid_learned", "estimate"}], "room", "memory_limit",
"cache_limit", "seconds"}. The setups come best first; they are rehearsed in turn until three fit
into `room` bytes, and those are then run.
Writes what it found to `probe.json`, and line by line, as it finds it, to `probe.json.partial`: the
process may die of what it tries, and then the last line tells of what.
"""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.generate import generate_step

from safetrain_shared.codec import from_plain, to_plain
from safetrain_shared.errors import InvalidInput, SafetrainError
from safetrain_shared.findings import finding_of
from safetrain_shared.paths import RunFolder
from safetrain_shared.settings import TrainingSettings
from safetraind.host import footprint
from safetraind.storage.durable import write_json
from safetraind.worker.loading import LoadedModel, load
from safetraind.worker.probe.device import device_facts
from safetraind.worker.probe.rehearse import Rehearsal
from safetraind.worker.training.batches import Batch
from safetraind.worker.training.step import Stepper

REQUEST = "probe_request.json"
_ENOUGH = 3
# What was measured may take so much more than what was only rehearsed (`preflight.budget`).
_CLOSE = 1.06
_ROWS = ("batch_size", "gradient_accumulation", "max_seq_length")
_NOT_IN_THE_MODEL = ("gradient_checkpointing", "loss_chunk")
# The first step compiles and reads about 5 % low; these come after it.
MEASURED_STEPS = 3
_LEAST_VOCABULARY = 256
_PACKED_SAMPLES = 4  # in a row that is made up; memory does not depend on it


class Findings:
    """What was found so far, on the disk at once."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._all: dict[str, Any] = {"measures": [], "rehearsed": []}
        self._partial = run.probe.with_name(f"{run.probe.name}.partial").open("w", encoding="utf-8")

    def add(self, kind: str, value: Any) -> None:
        """Notes one finding. Measures and rehearsals are collected; of the rest the last counts."""
        if kind in ("measures", "rehearsed"):
            self._all[kind].append(value)
        elif kind != "trying":
            self._all[kind] = value
        self._partial.write(json.dumps({kind: value}) + "\n")
        self._partial.flush()

    def __contains__(self, kind: str) -> bool:
        return kind in self._all

    def finish(self) -> None:
        """Writes the result as a whole."""
        write_json(self._run.probe, self._all)


def main(arguments: list[str]) -> int:
    """Probes as the run folder asks. A model that doesn't load is a result, not a failure."""
    run = RunFolder(Path(arguments[0]))
    _keep_descriptors()
    request = json.loads((run.root / REQUEST).read_text(encoding="utf-8"))
    findings = Findings(run)
    findings.add("device", device_facts())
    if request.get("model"):
        if request.get("memory_limit"):
            mx.set_memory_limit(request["memory_limit"])
        if request.get("cache_limit"):
            mx.set_cache_limit(request["cache_limit"])
        _probe_model(request, findings)
    findings.finish()
    return 0


def _keep_descriptors() -> None:
    """The run's lock and the lease are this process's alone: no helper may inherit them."""
    for name in ("SAFETRAIN_RUN_FD", "SAFETRAIN_LEASE_FD"):
        if os.environ.get(name):
            os.set_inheritable(int(os.environ[name]), False)


def _probe_model(request: Mapping[str, Any], findings: Findings) -> None:
    deadline = time.monotonic() + float(request.get("seconds", 60))
    try:
        chosen = _rehearse(request, findings)
        for number, group in enumerate(_groups(chosen)):
            if number and time.monotonic() > deadline:
                return
            _measure(request, group, deadline, findings)
    except SafetrainError as error:
        finding = finding_of(error)
        findings.add("failed", to_plain(finding))


def _rehearse(request: Mapping[str, Any], findings: Findings) -> list[Mapping[str, Any]]:
    """The first setups that fit by rehearsal, and before them one that nearly does, which is faster
    and may fit when it is run. Each model as it would be trained is loaded once.

    Where a setup cannot be rehearsed, its estimate decides whether it is run.
    """
    fitting: list[Mapping[str, Any]] = []
    close: list[Mapping[str, Any]] = []
    for group in _groups(request.get("setups", []), apart=_NOT_IN_THE_MODEL):
        for setup, peak in _peaks(request, group, fitting, findings):
            if peak <= request["room"]:
                fitting.append(setup)
            elif peak <= _CLOSE * request["room"] and not fitting and not close:
                close.append(setup)
            if len(fitting) >= _ENOUGH:
                break
        if fitting:
            break
    return close + fitting


def _peaks(
    request: Mapping[str, Any],
    group: Sequence[Mapping[str, Any]],
    fitting: Sequence[Mapping[str, Any]],
    findings: Findings,
) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Rehearses setups of one model in turn, but none that would only save memory that there is:
    with the rows of one that is `fitting` by then.
    """
    rehearsal, loaded = _ready(
        request, from_plain(group[0]["settings"], TrainingSettings), findings
    )
    for setup in group:
        if any(setup["rows"] == other["rows"] for other in fitting):
            continue
        peak = int(setup["estimate"])
        try:
            peak = _rehearsed(rehearsal, setup, loaded)
            findings.add("rehearsed", {**setup, "peak": peak})
        except Exception as error:  # a model's own code may do anything while it is traced
            findings.add("unrehearsed", f"{type(error).__name__}: {error}"[:200])
        yield setup, peak


def _ready(
    request: Mapping[str, Any], settings: TrainingSettings, findings: Findings
) -> tuple[Rehearsal, LoadedModel]:
    """The model with its adapter. The first time it also generates a token.

    Raises InvalidInput where it does not get there, InvalidSetting where the settings don't suit.
    """
    began = time.monotonic()
    try:
        loaded = _load(request, settings)
        if "loaded" not in findings:
            seconds = time.monotonic() - began
            findings.add("loaded", {"seconds": seconds, "token": _first_token(loaded)})
    except SafetrainError:
        raise
    except Exception as error:  # of memory, of a damaged file, of a model's own code
        reason = str(error).strip().splitlines()[:1]
        args = {"path": request["model"], "reason": "".join(reason) or type(error).__name__}
        raise InvalidInput("model.does_not_load", **args) from error
    return Rehearsal(loaded.model, settings), loaded


def _rehearsed(rehearsal: Rehearsal, setup: Mapping[str, Any], loaded: LoadedModel) -> int:
    """The peak by rehearsal: of the step, or of the evaluation where that is more."""
    settings = from_plain(setup["settings"], TrainingSettings)
    peak = rehearsal.peak(settings, _batch(setup, loaded))
    if (evaluated := _evaluated(setup, loaded)) is None:
        return peak
    return max(peak, rehearsal.evaluation_peak(settings, evaluated))


def _groups(
    setups: Sequence[Mapping[str, Any]], apart: tuple[str, ...] = ()
) -> list[list[Mapping[str, Any]]]:
    """Setups alike in all settings but the rows of a micro-batch, and what else is named."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for setup in setups:
        own = dict.fromkeys((*_ROWS, *apart), 0)
        key = json.dumps({**setup["settings"], **own}, sort_keys=True)
        groups.setdefault(key, []).append(setup)
    return list(groups.values())


def _load(request: Mapping[str, Any], settings: TrainingSettings) -> LoadedModel:
    """The model; the one before it goes first: a compiled step refers to itself, so it waits for
    the collector, and would count in the peak of what is tried next.
    """
    gc.collect()
    mx.clear_cache()
    return load(
        request["model"],
        dequantize=settings.dequantize,
        trust_remote_code=bool(request.get("trust_remote_code")),
    )


def _first_token(loaded: LoadedModel) -> str:
    """What the model says after a short prompt; a tokenizer may make nothing of the text."""
    prompt = mx.array(loaded.tokenizer.encode("1 2 3") or [0])
    token, _ = next(iter(generate_step(prompt, loaded.model, max_tokens=1)))
    return str(loaded.tokenizer.decode([int(token)]))


def _measure(
    request: Mapping[str, Any],
    group: Sequence[Mapping[str, Any]],
    deadline: float,
    findings: Findings,
) -> None:
    """Real steps of each setup. Each begins from an empty allocator cache and a fresh peak.

    What is being tried is told before the model is loaded: the process may die from there on.
    """
    findings.add("trying", group[0])
    settings = from_plain(group[0]["settings"], TrainingSettings)
    loaded = _load(request, settings)
    stepper = Stepper(loaded.model, settings, seed=0)
    for number, setup in enumerate(group):
        if number and time.monotonic() > deadline:
            return
        findings.add("trying", setup)
        try:
            findings.add("measures", {**setup, **_measured(stepper, setup, loaded)})
        except (TypeError, ValueError, AttributeError) as error:  # RuntimeError is left to kill us
            args = {"path": request["model"], "reason": str(error)[:200]}
            raise InvalidInput("model.does_not_train", **args) from error


def _measured(stepper: Stepper, setup: Mapping[str, Any], loaded: LoadedModel) -> dict[str, Any]:
    batch = _batch(setup, loaded)
    window = [batch] * (2 if setup["settings"]["gradient_accumulation"] > 1 else 1)
    stepper.step(window, 0, 0.0)
    mx.clear_cache()
    mx.reset_peak_memory()
    began = time.monotonic()
    for step in range(1, 1 + MEASURED_STEPS):
        stepper.step(window, step, 0.0)
    seconds = time.monotonic() - began
    if (evaluated := _evaluated(setup, loaded)) is not None:
        stepper.evaluate([evaluated])
    held = mx.get_active_memory() + mx.get_cache_memory()
    return {
        "peak": mx.get_peak_memory(),
        "tokens_per_second": MEASURED_STEPS * len(window) * batch.inputs.size / seconds,
        "outside": max(0, footprint(os.getpid()) - held),
    }


def _batch(setup: Mapping[str, Any], loaded: LoadedModel) -> Batch:
    rows, width, learned = (setup[name] for name in ("rows", "width", "learned"))
    packed = setup["settings"]["packing"]
    return made_up(rows, width, learned, _vocabulary(loaded), packed=packed)


def _evaluated(setup: Mapping[str, Any], loaded: LoadedModel) -> Batch | None:
    """The widest batch of an evaluation, where it is wider than those that are trained on."""
    width, learned = setup["valid_width"], setup["valid_learned"]
    return made_up(setup["rows"], width, learned, _vocabulary(loaded)) if width else None


def _vocabulary(loaded: LoadedModel) -> int:
    text = loaded.config.get("text_config") or {}
    return int(loaded.config.get("vocab_size") or text.get("vocab_size") or _LEAST_VOCABULARY)


def made_up(rows: int, width: int, learned: int, vocabulary: int, *, packed: bool = False) -> Batch:
    """A micro-batch of random tokens, every one real, `learned` predictions of which count.

    `packed`: each row holds a few samples.
    """
    draw = np.random.default_rng(0)
    inputs = draw.integers(0, vocabulary, (rows, width), np.int32)
    places = np.sort(draw.permutation(rows * width)[:learned]).astype(np.int32)
    segments = np.tile(np.arange(width, dtype=np.int32) * _PACKED_SAMPLES // width, (rows, 1))
    positions = np.tile(np.arange(width, dtype=np.int32), (rows, 1))
    return Batch(
        inputs=inputs,
        places=places,
        targets=draw.integers(0, vocabulary, learned, np.int32),
        weights=np.ones(learned, np.float32),
        segments=segments if packed else None,
        positions=positions if packed else None,
        samples=(),
        tokens=rows * width,
        learned=learned,
    )

"""The worker role `probe`: tries the device, the model, and real training steps, and measures them.

Reads `probe_request.json` in its run folder: {"model", "trust_remote_code", "setups": [{"settings",
"rows", "width", "learned", "valid_width", "valid_learned"}], "memory_limit", "cache_limit",
"seconds"}. The setups are run in turn, as the trainer would run them; none is begun for which
`seconds` would not suffice.

Writes what it found to `probe.json`, and line by line, as it finds it, to `probe.json.partial`: the
process may die of what it tries, and then the last line tells of what. The lines:

    device       what the device is, and whether it works
    loaded       the model was loaded and generated a token
    splits_head  whether the loss can be computed in chunks
    unsupported  settings, by name, that the model would be trained wrongly with; nothing was run
    trying       a setup, before it is run
    measures     a setup with its peak and speed
    slow         seconds that the next step would have taken: there was no time for it
    out_of_memory  MLX said so; the process then ends with an error
    failed       a finding: the model does not load, or cannot be trained
    phase, done  progress: loading, first_token or measuring; 0 to 1
"""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.generate import generate_step

from safetrain_shared.codec import from_plain, to_plain
from safetrain_shared.errors import InvalidInput, SafetrainError
from safetrain_shared.findings import finding_of
from safetrain_shared.paths import RunFolder
from safetrain_shared.settings import TrainingSettings
from safetraind.storage.durable import write_json
from safetraind.worker.loading import LoadedModel, load
from safetraind.worker.probe.device import device_facts
from safetraind.worker.probe.steps import measure, trial_of
from safetraind.worker.training.outcome import is_out_of_memory
from safetraind.worker.training.step import Stepper

REQUEST = "probe_request.json"
_NOT_IN_THE_WAY = ("batch_size", "gradient_accumulation", "max_seq_length")
_LEAST_VOCABULARY = 256
# A training step by one pass forward: there, back, and what is computed again.
_STEP_BY_FORWARD = 3.0
_LONG = 7 * 24 * 3600.0
# Refusals of the trainer that concern a setting that the planner can turn off.
_UNSUPPORTED = {
    "train.packing_unsupported": "packing",
    "train.no_checkpointing": "gradient_checkpointing",
    "train.own_dropout": "gradient_checkpointing",
}


class Findings:
    """What was found so far, on the disk at once."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._all: dict[str, Any] = {"measures": []}
        self.unsupported: list[str] = []
        self._partial = run.probe.with_name(f"{run.probe.name}.partial").open("w", encoding="utf-8")

    def add(self, kind: str, value: Any) -> None:
        """Notes one finding. Measures are collected; of the rest the last counts."""
        if kind == "measures":
            self._all[kind].append(value)
        elif kind != "trying":
            self._all[kind] = value
        self._write({kind: value})

    def progress(self, phase: str, done: float = -1.0) -> None:
        """Tells what is being done, and how much of it."""
        self._write({"phase": phase, "done": done})

    def add_unsupported(self, setting: str) -> None:
        """Notes a setting that the model cannot be trained with."""
        if setting not in self.unsupported:
            self.unsupported.append(setting)
            self.add("unsupported", self.unsupported)

    def __contains__(self, kind: str) -> bool:
        return kind in self._all

    def finish(self) -> None:
        """Writes the result as a whole."""
        write_json(self._run.probe, self._all)

    def _write(self, line: Mapping[str, Any]) -> None:
        self._partial.write(json.dumps(line) + "\n")
        self._partial.flush()


class Clock:
    """How much of the time for probing is left, and what a step will take."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.seconds_a_token = 0.0  # of a training step, as far as is known

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    def needs(self, tokens: int) -> float:
        """Seconds for a first step and another one of so many tokens."""
        return 2 * tokens * self.seconds_a_token


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
    for name in ("SAFETRAIN_RUN_FD", "SAFETRAIN_LEASE_FD", "SAFETRAIN_OUTPUT_FD"):
        if os.environ.get(name):
            os.set_inheritable(int(os.environ[name]), False)


def _probe_model(request: Mapping[str, Any], findings: Findings) -> None:
    clock = Clock(float(request.get("seconds", _LONG)))
    try:
        for way in _ways(request.get("setups", [])):
            _run(request, way, clock, findings)
            if "slow" in findings:
                return
    except SafetrainError as error:
        finding = finding_of(error)
        findings.add("failed", to_plain(finding))


def _ways(setups: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Setups by their way of computing: alike in all settings but the rows of a micro-batch."""
    ways: dict[str, list[Mapping[str, Any]]] = {}
    for setup in setups:
        own = dict.fromkeys(_NOT_IN_THE_WAY, 0)
        key = json.dumps({**setup["settings"], **own}, sort_keys=True)
        ways.setdefault(key, []).append(setup)
    return list(ways.values())


def _run(
    request: Mapping[str, Any], way: Sequence[Mapping[str, Any]], clock: Clock, findings: Findings
) -> None:
    """Real steps of each setup. Each begins from an empty allocator cache and a fresh peak."""
    settings = from_plain(way[0]["settings"], TrainingSettings)
    if any(getattr(settings, name) for name in findings.unsupported):
        return
    loaded = _ready(request, settings, clock, findings)
    try:
        stepper = Stepper(loaded.model, settings, seed=0)
        findings.add("splits_head", stepper.splits_head)
        for number, setup in enumerate(way):
            findings.progress("measuring", number / len(way))
            if not _try(stepper, setup, _vocabulary(loaded), clock, findings):
                return
    except SafetrainError as error:
        if error.code not in _UNSUPPORTED:
            raise
        findings.add_unsupported(_UNSUPPORTED[error.code])
    except Exception as error:  # a model's own code may raise anything
        if is_out_of_memory(error):
            findings.add("out_of_memory", True)
            raise
        args = {"path": request["model"], "reason": _reason(error)}
        raise InvalidInput("model.does_not_train", **args) from error


def _try(
    stepper: Stepper, setup: Mapping[str, Any], vocabulary: int, clock: Clock, findings: Findings
) -> bool:
    """Runs one setup; False where there is no time for it."""
    trial = trial_of(setup)
    if (needed := clock.needs(trial.tokens)) > clock.left:
        findings.add("slow", needed)
        return False
    findings.add("trying", setup)
    first = 0.0

    def time_for(seconds: float) -> bool:
        nonlocal first
        first = seconds
        return seconds <= clock.left

    found = measure(stepper, trial, vocabulary, time_for)
    if found is None:
        findings.add("slow", first)
        return False
    clock.seconds_a_token = 1 / found["tokens_per_second"]
    findings.add("measures", {**setup, **found})
    return True


def _ready(
    request: Mapping[str, Any], settings: TrainingSettings, clock: Clock, findings: Findings
) -> LoadedModel:
    """The model. The first time it also generates a token.

    Raises InvalidInput where it does not get there.
    """
    began = time.monotonic()
    findings.progress("loading")
    try:
        loaded = _load(request, settings)
        if "loaded" not in findings:
            findings.progress("first_token")
            seconds = time.monotonic() - began
            token = _first_token(loaded, clock)
            findings.add("loaded", {"seconds": seconds, "token": token})
    except SafetrainError:
        raise
    except Exception as error:  # of memory, of a damaged file, of a model's own code
        args = {"path": request["model"], "reason": _reason(error)}
        raise InvalidInput("model.does_not_load", **args) from error
    return loaded


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


def _first_token(loaded: LoadedModel, clock: Clock) -> str:
    """What the model says after a short prompt; a tokenizer may make nothing of the text.

    Its time is a first guess of what a training step takes.
    """
    prompt = loaded.tokenizer.encode("1 2 3") or [0]
    began = time.monotonic()
    token, _ = next(iter(generate_step(mx.array(prompt), loaded.model, max_tokens=1)))
    seconds = time.monotonic() - began
    clock.seconds_a_token = _STEP_BY_FORWARD * seconds / (len(prompt) + 1)
    return str(loaded.tokenizer.decode([int(token)]))


def _vocabulary(loaded: LoadedModel) -> int:
    text = loaded.config.get("text_config") or {}
    return int(loaded.config.get("vocab_size") or text.get("vocab_size") or _LEAST_VOCABULARY)


def _reason(error: Exception) -> str:
    """The first line of what was raised, or the name of its class."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__

"""The worker role `probe`: tries the device, the model, and real training steps, and measures them.

`worker_messages.probe_messages` has its request, its lines and its result. The setups are run in
turn, as the trainer would run them; none is begun for which the time would not suffice. Each
finding is written at once, because the process may die of what it tries: the last line then shows
what it was.
"""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Sequence

import mlx.core as mx
from mlx_lm.generate import generate_step

from safetrain_shared.errors import InvalidInput, SafetrainError
from safetrain_shared.findings import finding_of
from safetrain_shared.settings import TrainingSettings
from safetraind.worker.exchange import Tell, answer, read_request
from safetraind.worker.loading import LoadedModel, load
from safetraind.worker.probe.device import device_facts
from safetraind.worker.probe.steps import measure
from safetraind.worker.training.outcome import is_out_of_memory
from safetraind.worker.training.step import Stepper
from safetraind.worker_messages.probe_messages import (
    PROBE,
    Loaded,
    ProbeLine,
    ProbeRequest,
    ProbeResult,
    Setup,
)
from safetraind.worker_messages.role import WorkerProgress

_LEAST_VOCABULARY = 256
# A training step by one pass forward: there, back, and what is computed again.
_STEP_BY_FORWARD = 3.0
_QUICK_SECONDS = 30.0  # of a first step, as guessed by the first token
_LONGER_PROMPT = 64  # tokens
# Refusals of the trainer that concern a setting that the planner can turn off.
_UNSUPPORTED = {
    "train.packing_unsupported": "packing",
    "train.no_checkpointing": "gradient_checkpointing",
    "train.own_dropout": "gradient_checkpointing",
}


class Findings:
    """The findings so far, each written at once."""

    def __init__(self, tell: Tell) -> None:
        self.all = ProbeResult()
        self._tell = tell

    def add(self, line: ProbeLine) -> None:
        """Note one finding, and write it."""
        self._tell(line)
        self.all = self.all.plus(line)

    def progress(self, phase: str, done: float = -1.0) -> None:
        """Report the phase, and the share of it that is done."""
        self._tell(ProbeLine(progress=WorkerProgress(phase, done)))

    def add_unsupported(self, setting: str) -> None:
        """Note a setting that the model cannot be trained with."""
        if setting not in self.all.unsupported:
            self.add(ProbeLine(unsupported=setting))


class Clock:
    """The time left for probing, and the expected time of a step."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.seconds_a_token = 0.0  # of a training step, as far as is known

    @property
    def left(self) -> float:
        """Seconds left for probing."""
        return self._end - time.monotonic()

    def needs(self, tokens: int) -> float:
        """Return the seconds for a first step and another one of so many tokens."""
        return 2 * tokens * self.seconds_a_token


def main(arguments: list[str]) -> int:
    """Run the setups that the request in the run folder `arguments[0]` names. Return 0: a model
    that does not load is a result.
    """
    request = read_request(arguments[0], PROBE.name, ProbeRequest)
    answer(arguments[0], lambda tell: _probe(request, Findings(tell)))
    return 0


def _probe(request: ProbeRequest, findings: Findings) -> ProbeResult:
    findings.add(ProbeLine(device=device_facts()))
    if request.model:
        if request.memory_limit:
            mx.set_memory_limit(request.memory_limit)
        if request.cache_limit:
            mx.set_cache_limit(request.cache_limit)
        _probe_model(request, findings)
    return findings.all


def _probe_model(request: ProbeRequest, findings: Findings) -> None:
    clock = Clock(request.seconds)
    try:
        for way in _ways(request.setups):
            _run(request, way, clock, findings)
            if findings.all.slow is not None:
                return
    except SafetrainError as error:
        findings.add(ProbeLine(loaded=Loaded(0.0, cause=finding_of(error))))


def _ways(setups: Sequence[Setup]) -> list[list[Setup]]:
    """Return the setups grouped by their way of computing: equal in all settings except the rows of
    a micro-batch.
    """
    ways: dict[TrainingSettings, list[Setup]] = {}
    for setup in setups:
        way = dataclasses.replace(
            setup.settings, batch_size=1, gradient_accumulation=1, max_seq_length=1
        )
        ways.setdefault(way, []).append(setup)
    return list(ways.values())


def _run(request: ProbeRequest, way: Sequence[Setup], clock: Clock, findings: Findings) -> None:
    """Run real steps of each setup, each from an empty allocator cache and a fresh peak."""
    settings = way[0].settings
    if any(getattr(settings, name) for name in findings.all.unsupported):
        return
    loaded = _ready(request, way, clock, findings)
    try:
        stepper = Stepper(loaded.model, settings, seed=0)
        findings.add(ProbeLine(splits_head=stepper.splits_head))
        for number, setup in enumerate(way):
            findings.progress("measuring", number / len(way))
            vocabulary = _vocabulary(loaded)
            if not _try(stepper, setup, vocabulary, clock, findings):
                return
    except SafetrainError as error:
        if error.code not in _UNSUPPORTED:
            raise
        findings.add_unsupported(_UNSUPPORTED[error.code])
    except Exception as error:  # a model's own code may raise anything
        if is_out_of_memory(error):
            findings.add(ProbeLine(out_of_memory=True))
            raise
        args = {"path": request.model, "reason": _reason(error)}
        raise InvalidInput("model.does_not_train", **args) from error


def _try(stepper: Stepper, setup: Setup, vocabulary: int, clock: Clock, findings: Findings) -> bool:
    """Run one setup. Return False where there is no time for it."""
    if (needed := clock.needs(setup.step.tokens)) > clock.left:
        findings.add(ProbeLine(slow=needed))
        return False
    findings.add(ProbeLine(trying=setup))
    first, is_over = 0.0, False

    def time_for(seconds: float) -> bool:
        nonlocal first, is_over
        first, is_over = seconds, seconds > clock.left
        return not is_over

    found = measure(stepper, setup, vocabulary, time_for)
    if found is not None:
        clock.seconds_a_token = 1 / found.tokens_per_second
        findings.add(ProbeLine(measure=found))
    if is_over:
        findings.add(ProbeLine(slow=first))
    return not is_over


def _ready(
    request: ProbeRequest, way: Sequence[Setup], clock: Clock, findings: Findings
) -> LoadedModel:
    """Return the model. The first time it also generates a token.

    Raises InvalidInput where it does not get there. A model that was loaded before, for another way
    of computing, can be loaded: if it dies of memory now, it is this way that does not fit.
    """
    again = findings.all.loaded is not None
    if again:
        findings.add(ProbeLine(trying=way[0]))
    began = time.monotonic()
    findings.progress("loading")
    try:
        loaded = _load(request, way[0].settings)
        if findings.all.loaded is None:
            findings.progress("first_token")
            seconds = time.monotonic() - began
            token = _first_token(loaded, clock)
            findings.add(ProbeLine(loaded=Loaded(seconds, token)))
    except SafetrainError:
        raise
    except Exception as error:  # of memory, of a damaged file, of a model's own code
        if again and is_out_of_memory(error):
            findings.add(ProbeLine(out_of_memory=True))
            raise
        args = {"path": request.model, "reason": _reason(error)}
        raise InvalidInput("model.does_not_load", **args) from error
    return loaded


def _load(request: ProbeRequest, settings: TrainingSettings) -> LoadedModel:
    """Load the model, after the one before it is freed.

    A compiled step refers to itself, so it waits for the collector, and would count in the next
    peak.
    """
    gc.collect()
    mx.clear_cache()
    return load(
        request.model,
        dequantize=settings.dequantize,
        trust_remote_code=request.trust_remote_code,
    )


def _first_token(loaded: LoadedModel, clock: Clock) -> str:
    """Return the first token after a short prompt; empty where the tokenizer makes nothing of it.

    Its time is a first guess of a training step's time. Where it was quick, most of it went into
    compiling and reading the weights, so a longer prompt makes the guess.
    """
    prompt = loaded.tokenizer.encode("1 2 3") or [0]
    token = _time_token(loaded, prompt, clock)
    if clock.seconds_a_token * len(prompt) < _QUICK_SECONDS:
        _time_token(loaded, (prompt * _LONGER_PROMPT)[:_LONGER_PROMPT], clock)
    return str(loaded.tokenizer.decode([token]))


def _time_token(loaded: LoadedModel, prompt: list[int], clock: Clock) -> int:
    """Return the token after `prompt`, and set the clock's seconds a token by it."""
    began = time.monotonic()
    token, _ = next(iter(generate_step(mx.array(prompt), loaded.model, max_tokens=1)))
    seconds = time.monotonic() - began
    clock.seconds_a_token = _STEP_BY_FORWARD * seconds / (len(prompt) + 1)
    return int(token)


def _vocabulary(loaded: LoadedModel) -> int:
    text = loaded.config.get("text_config") or {}
    return int(loaded.config.get("vocab_size") or text.get("vocab_size") or _LEAST_VOCABULARY)


def _reason(error: Exception) -> str:
    """Return the first line of the error's text, or the name of its class."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__

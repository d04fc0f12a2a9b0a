"""Measures how well a fused model agrees with base and adapter, on greedy answers, by token."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import generate_step
from mlx_lm.tokenizer_utils import TokenizerWrapper

from safetrain_shared.errors import InvalidInput
from safetraind.worker.data.encode_chat import Encoder
from safetraind.worker.data.thinking import GIVEN
from safetraind.worker.inference.generation import encode_prompt
from safetraind.worker.loading import adapter_off
from safetraind.worker_messages.export_messages import Agreement

PROMPT_TOKENS = 192
ANSWER_TOKENS = 24
SAMPLES = 4
"""Questions taken from the validation file."""

TIE = 0.05
"""Tokens whose log-probabilities are closer than this tie: rounding to 16 bits decides."""

_QUESTIONS = ("Olá! Em que me podes ajudar?", "What is the capital of Portugal?")
_SMALLEST_EFFECT = 1e-2
"""The least effect that counts, relative to the logits: shares of less would be noise."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A question and the adapter's answer, as tokens."""

    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True, slots=True)
class Reference:
    """The logits of base and adapter: float32 (answer tokens, vocabulary) each, centred."""

    probes: list[Probe]
    base: mx.array
    adapted: mx.array

    def compare(self, fused: nn.Module) -> Agreement:
        """Return the agreement of `fused` with the adapter on the same probes."""
        return compare(self.base, self.adapted, _logits(fused, self.probes))


def ask_both(
    model: nn.Module, tokenizer: TokenizerWrapper, valid: str, thinking: str = GIVEN
) -> Reference:
    """Ask a model, with and without its adapter, samples of `valid` and two fixed questions.

    `thinking`: the setting of that name of the training.
    """
    asked = [[{"role": "user", "content": question}] for question in _QUESTIONS]
    prompts = [encode_prompt(tokenizer, messages, thinking) for messages in asked]
    prompts = _samples(Encoder(tokenizer, thinking=thinking), valid) + prompts
    probes = [Probe(prompt, _greedy(model, prompt)) for prompt in prompts]
    adapted = _logits(model, probes)
    with adapter_off(model):
        return Reference(probes, _logits(model, probes), adapted)


def compare(base: mx.array, adapted: mx.array, fused: mx.array) -> Agreement:
    """Return the agreement of `fused` with `adapted`, each (tokens, vocabulary), centred."""
    effect = max(_rms(adapted - base), _SMALLEST_EFFECT * _rms(adapted))
    lost = _rms(fused - adapted) / effect if effect else 0.0
    chosen, other = (mx.argmax(x, axis=-1, keepdims=True) for x in (adapted, fused))
    margin = mx.take_along_axis(adapted, chosen, -1) - mx.take_along_axis(adapted, other, -1)
    differing: Any = (margin > TIE).sum().item()
    return Agreement(lost, len(chosen), differing)


def _logits(model: nn.Module, probes: list[Probe]) -> mx.array:
    """Return the logits of `model` at each token of the answers, centred.

    Subtracting each row's mean changes no answer; differences are then those of log-probabilities.
    """
    rows = []
    for probe in probes:
        tokens = mx.array([probe.prompt + probe.answer[:-1]])
        row = model(tokens)[0, len(probe.prompt) - 1 :].astype(mx.float32)
        rows.append(row - row.mean(axis=-1, keepdims=True))
        mx.eval(rows[-1])
    return mx.concatenate(rows)


def _greedy(model: nn.Module, prompt: list[int]) -> list[int]:
    steps = generate_step(mx.array(prompt), model, max_tokens=ANSWER_TOKENS)
    return [int(token) for token, _ in steps]


def _samples(encoder: Encoder, valid: str) -> list[list[int]]:
    """Return the prompts of the first short samples of a validation file."""
    if not valid:
        return []
    try:
        found = list(islice(encoder.encode_file(valid), SAMPLES))
    except (OSError, InvalidInput):  # missing or changed since the training: use fixed ones alone
        return []
    prompts = [s.tokens[: max(1, s.learned.index(True))] for s in found if True in s.learned]
    return [prompt for prompt in prompts if len(prompt) <= PROMPT_TOKENS]


def _rms(values: mx.array) -> float:
    root: Any = mx.sqrt(mx.square(values).mean()).item()
    return float(root)

"""Tests of a model's earlier abilities: a small suite of questions, and a text to measure
divergence on.

`general.jsonl` and `neutral.txt` beside this file were written for this project (CC0-1.0).
"""

from __future__ import annotations

import math
from pathlib import Path

import mlx.core as mx
import numpy as np

from safetraind.worker.evaluation.answering import Watcher
from safetraind.worker.evaluation.question_set import Question, read_questions
from safetraind.worker.loading import LoadedModel, adapter_off, attach_adapter, detach_adapter

_HERE = Path(__file__).parent
_LONGEST = 256  # tokens of a passage
UNBOUNDED = 99.0  # nats, where a prediction is not finite


def general_questions() -> list[Question]:
    """Return the suite, in Portuguese and English: language, arithmetic, instructions, unanswerable
    questions.
    """
    return read_questions(str(_HERE / "general.jsonl"))


def neutral_passages() -> list[str]:
    """Return the passages of plain prose, which no training data of this product holds."""
    text = (_HERE / "neutral.txt").read_text(encoding="utf-8")
    return [passage.strip() for passage in text.split("\n\n") if passage.strip()]


def divergence(loaded: LoadedModel, adapter: Path, watcher: Watcher) -> float:
    """Return the mean over tokens of KL(base ‖ adapter) on the neutral passages, in nats.

    Kullback and Leibler, On Information and Sufficiency (1951). The model has no adapter before and
    after. UNBOUNDED where a prediction is not finite.
    """
    attach_adapter(loaded.model, adapter)
    total, tokens = 0.0, 0
    for passage in neutral_passages():
        watcher.check()
        ids = loaded.tokenizer.encode(passage)[:_LONGEST]
        theirs = _log_probabilities(loaded, ids)
        with adapter_off(loaded.model):
            ours = _log_probabilities(loaded, ids)
        total += float(np.asarray(mx.sum(mx.exp(ours) * (ours - theirs))))
        tokens += len(ids)
    detach_adapter(loaded.model)
    return total / max(1, tokens) if math.isfinite(total) else UNBOUNDED


def _log_probabilities(loaded: LoadedModel, ids: list[int]) -> mx.array:
    """Return the log probabilities (tokens, vocabulary), float32, evaluated."""
    logits = loaded.model(mx.array(ids)[None])[0].astype(mx.float32)
    found = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    mx.eval(found)
    return found

"""What is right, computed in the plainest way: one sample at a time, no batch, no padding."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm import load

from benchmarks.conformance.material import Conversation


def answer_tokens(model: Path, sample: Conversation) -> int:
    """The tokens of a conversation's last answer."""
    tokens, start = _tokens(load(str(model))[1], sample)
    return len(tokens) - start


def all_tokens(model: Path, sample: Conversation) -> int:
    """The tokens of a conversation, prompt and answers."""
    return len(_tokens(load(str(model))[1], sample)[0])


def mean_loss(model: Path, samples: list[Conversation], adapter: Path | None = None) -> float:
    """The mean loss over the tokens of all last answers; of the model with `adapter`, if given."""
    network, tokenizer = load(str(model), adapter_path=str(adapter) if adapter else None)
    total, count = 0.0, 0
    for sample in samples:
        tokens, start = _tokens(tokenizer, sample)
        logits = network(mx.array(tokens[:-1])[None])[0]
        losses = nn.losses.cross_entropy(logits, mx.array(tokens[1:]))[start - 1 :]
        total, count = total + float(np.array(losses.sum())), count + losses.size
    return total / count


def _tokens(tokenizer: object, sample: Conversation) -> tuple[list[int], int]:
    """A conversation's tokens, and where its last answer begins."""
    render = tokenizer.apply_chat_template  # type: ignore[attr-defined]
    messages = sample["messages"]
    before = render(messages[:-1], add_generation_prompt=True)
    return list(render(messages)), len(before)

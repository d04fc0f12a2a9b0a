"""Answers, chunks of a stream and usage, as the JSON of chat completions. Pure.

Each names who answered: `model`, `system_fingerprint`, and all of it in a field of our own,
`safetrain`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from safetrain.serve.served import Served, display_name
from safetrain_proto.v1.answers_pb2 import AnswerDone, AnswerSource

Json = dict[str, Any]
END = "data: [DONE]\n\n"
_HASH_DIGITS = 16  # enough to tell adapters apart at a glance; `safetrain` has them all


@dataclass(frozen=True, slots=True)
class Completion:
    """What all parts of one answer have in common. `created`: seconds since 1970."""

    id: str
    created: int
    source: AnswerSource

    def whole(self, text: str, done: AnswerDone) -> Json:
        """Return an answer that is sent in one piece."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": finish_reason(done),
        }
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(done)}

    def first(self) -> Json:
        """Return the chunk that begins a stream."""
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, text: str) -> Json:
        """Return a chunk with more of the text."""
        return self._chunk({"content": text})

    def last(self, done: AnswerDone) -> Json:
        """Return the chunk that says why the text ends."""
        return self._chunk({}, finish_reason(done))

    def used(self, done: AnswerDone) -> Json:
        """Return the chunk after the last, for a client that asked for the usage."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(done)}

    def _chunk(self, delta: Json, reason: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": answered_by(self.source),
            "system_fingerprint": fingerprint(self.source),
            "safetrain": described(self.source),
        }


def answered_by(source: AnswerSource) -> str:
    """Return model, job and, in training, the step, as in `demo:job-3@step-120`."""
    name = display_name(source.model)
    if source.job_id and (source.adapter or source.training):
        name += f":job-{source.job_id}"
    return name + (f"@step-{source.step}" if source.training else "")


def fingerprint(source: AnswerSource) -> str:
    """Return the adapter's hash, of a model in training its job and step, else `base`."""
    if source.training:
        return f"job-{source.job_id}-step-{source.step}"
    if source.adapter:
        return f"adapter-{source.adapter_sha256[:_HASH_DIGITS]}"
    return "base"


def described(source: AnswerSource) -> Json:
    """Return who answered, field by field; null for what there is none of."""
    return {
        "model": source.model,
        "job": source.job_id or None,
        "adapter": source.adapter or None,
        "adapter_sha256": source.adapter_sha256 or None,
        "training": source.training,
        "step": source.step if source.training else None,
    }


def finish_reason(done: AnswerDone) -> str:
    """Return why the answer ends: `stop` by itself or at a stop text, `length` at its longest."""
    return "length" if done.cut else "stop"


def usage(done: AnswerDone) -> Json:
    """Return the tokens of prompt and answer, without the one that ends it."""
    return {
        "prompt_tokens": done.prompt_tokens,
        "completion_tokens": done.tokens,
        "total_tokens": done.prompt_tokens + done.tokens,
    }


def model(served: Served, created: int) -> Json:
    """Return a model as `GET /v1/models` lists it."""
    return {"id": served.id, "object": "model", "created": created, "owned_by": "safetrain"}


def event(data: Json) -> str:
    """Return JSON as one event of a stream (server-sent events)."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"

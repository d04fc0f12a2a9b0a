"""Questions to a model and the parts of an answer, as daemon and worker exchange them.

The daemon sends a `Question` as one line of JSON; the worker answers with one `AnswerReply` a line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT_MAX_TOKENS = 256
CONTEXT_TOKENS = 4096  # of prompt and answer together, unless memory allows less


@dataclass(frozen=True, slots=True)
class Question:
    """A question: the turns so far, the last one the user's, and how to sample the answer.

    A `temperature` of 0 is greedy, a `top_p` of 0 or 1 leaves all tokens in. Without a `seed` each
    answer is sampled anew. `model` and `adapter` (folders; empty: as loaded, none) choose what
    answers, `base` leaves the adapter off. `keep_alive`: for how many seconds after it the model is
    to stay loaded; None leaves that as it is. `trust_remote_code`: the user wants the code that
    came with the model to run. The answer ends before the first text of `stop` that appears in it.
    `thinking`: the setting of that name of the training that is asked.
    """

    messages: tuple[Mapping[str, str], ...] = field(repr=False)
    max_tokens: int = DEFAULT_MAX_TOKENS
    temperature: float = 0.0
    top_p: float = 0.0
    seed: int | None = None
    base: bool = False
    adapter: str = ""
    model: str = ""
    keep_alive: float | None = None
    trust_remote_code: bool = False
    stop: tuple[str, ...] = field(default=(), repr=False)
    thinking: str = "given"


@dataclass(frozen=True, slots=True)
class AnswerSource:
    """The source of an answer: a model, an adapter (a folder; empty: the base).

    `step`, `training`: the optimizer step, of a training that answers.
    `adapter_sha256`: the SHA-256 of the adapter's weights file as it was loaded, in hexadecimal.
    """

    model: str
    adapter: str = ""
    step: int = 0
    training: bool = False
    adapter_sha256: str = ""


@dataclass(frozen=True, slots=True)
class AnswerDone:
    """The end of an answer. `cut`: it had more to say; then either `max_tokens` were reached, or it
    was `interrupted`, as by the end of the training that gave it.
    """

    prompt_tokens: int
    tokens: int
    seconds_to_first_token: float
    tokens_per_second: float
    cut: bool
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class AnswerReply:
    """One of these at a time, up to `done` or `error`.

    `waiting`: queue or loading. `text`: the next piece of the answer. `error`: as
    `errors.error_to_dict` writes it.
    """

    waiting: str | None = None
    source: AnswerSource | None = None
    text: str | None = None
    done: AnswerDone | None = None
    error: Mapping[str, Any] | None = None

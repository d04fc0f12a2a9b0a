"""`Answer`: the answer of a model with its source and speed, and the options of a question."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from safetrain import inputs
from safetrain.int64 import MOST
from safetrain.views import answer as views
from safetrain_proto.v1.answers_pb2 import AskEvent, AskRequest, Message
from safetrain_shared.errors import InvalidInput
from safetrain_shared.questions import DEFAULT_MAX_TOKENS


class AskOptions(TypedDict, total=False):
    """Options of a question, all optional.

    `job`: whose adapter answers. `checkpoint`: a checkpoint's folder name; else the best. `base`:
    without the adapter. `model`: the base model, with no job. `temperature`: 0 is greedy decoding.
    `top_p`: 0 is off. `wait`: wait for the GPU where another job holds it.
    """

    job: int
    checkpoint: str
    base: bool
    model: str
    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    system: str
    wait: bool


_AS_GIVEN = ("checkpoint", "base", "max_tokens", "temperature", "top_p", "seed", "wait")
ASK_DEFAULTS: Mapping[str, Any] = {
    "job": 0,
    "checkpoint": "",
    "base": False,
    "model": "",
    "max_tokens": DEFAULT_MAX_TOKENS,
    "temperature": 0.0,
    "top_p": 0.0,
    "seed": None,
    "system": "",
    "wait": False,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer. `str()` is its text.

    `adapter`: a folder, empty for the base model. `training`: the answer of a job in training,
    after `step`. `cut`: it ends at `max_tokens`.
    """

    text: str = ""
    model: str = ""
    adapter: str = ""
    job: int = 0
    step: int = 0
    training: bool = False
    tokens: int = 0
    prompt_tokens: int = 0
    seconds_to_first_token: float = 0.0
    tokens_per_second: float = 0.0
    cut: bool = False

    def __str__(self) -> str:
        return self.text


def answer_of(events: Iterable[AskEvent]) -> Answer:
    """Collect the answer of a stream."""
    answer = views.Answer()
    for event in events:
        answer.take(event)
    source, done = answer.source, answer.done
    return Answer(
        text="".join(answer.parts),
        model=source.model,
        adapter=source.adapter,
        job=source.job_id,
        step=source.step,
        training=source.training,
        tokens=done.tokens,
        prompt_tokens=done.prompt_tokens,
        seconds_to_first_token=done.seconds_to_first_token,
        tokens_per_second=done.tokens_per_second,
        cut=done.cut,
    )


def request(question: str, options: AskOptions) -> AskRequest:
    """Return the request for a question.

    Raises InvalidInput where it is empty or a number is out of range, NotFound for a job's number.
    """
    if not question.strip():
        raise InvalidInput("client.question_empty")
    given: dict[str, Any] = {**ASK_DEFAULTS, **options}
    messages = [Message(role="user", content=question)]
    if given["system"]:
        messages.insert(0, Message(role="system", content=given["system"]))
    for name in ("seed", "max_tokens"):
        if not 0 <= (given[name] or 0) <= MOST:
            raise InvalidInput("ask.out_of_range", field=name, low=0, high=MOST)
    return AskRequest(
        messages=messages,
        job_id=inputs.job_number(given["job"]),
        model=inputs.model(given["model"]) if given["model"] else "",
        **{name: given[name] for name in _AS_GIVEN},
    )

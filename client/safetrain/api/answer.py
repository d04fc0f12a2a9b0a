"""`Answer`: what a model said to a question, who said it, and how fast."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from safetrain import inputs
from safetrain.int64 import MOST
from safetrain_proto.v1.answers_pb2 import AskEvent, AskRequest, Message
from safetrain_shared.errors import InvalidInput
from safetrain_shared.questions import DEFAULT_MAX_TOKENS


class Question(TypedDict, total=False):
    """How to ask; all of it may be left out.

    `job`: whose adapter answers. `checkpoint`: a checkpoint's folder name; else the best. `base`:
    without the adapter. `model`: with no job, which base. `temperature`: 0 takes the likeliest
    token. `top_p`: 0 is off. `wait`: for the GPU, where another job holds it.
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
    """A whole answer. `str()` is its text.

    `adapter`: a folder, empty for the base model. `training`: given by a job at work, after
    `step`. `cut`: it ends at `max_tokens`. Speeds in tokens and seconds.
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

    def taking(self, event: AskEvent) -> Answer:
        """The answer gone on by one message of the daemon's."""
        match event.WhichOneof("body"):
            case "text":
                return replace(self, text=self.text + event.text)
            case "source":
                told = event.source
                return replace(
                    self,
                    model=told.model,
                    adapter=told.adapter,
                    job=told.job_id,
                    step=told.step,
                    training=told.training,
                )
            case "done":
                done = event.done
                return replace(
                    self,
                    tokens=done.tokens,
                    prompt_tokens=done.prompt_tokens,
                    seconds_to_first_token=done.seconds_to_first_token,
                    tokens_per_second=done.tokens_per_second,
                    cut=done.cut,
                )
        return self


def request(question: str, options: Question) -> AskRequest:
    """The question as the daemon takes it.

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


def parts(events: Iterable[AskEvent]) -> Iterator[str]:
    """The pieces of text alone."""
    return (event.text for event in events if event.HasField("text"))

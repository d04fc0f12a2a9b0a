"""Generates the answer to a question as a stream of text, with mlx-lm.

Sampling uses a random key of its own: MLX's global random state, on which a training depends, does
not change.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from jinja2 import TemplateError
from mlx_lm.generate import stream_generate
from mlx_lm.tokenizer_utils import TokenizerWrapper

from safetrain_shared.errors import InvalidInput
from safetrain_shared.questions import DEFAULT_MAX_TOKENS, AnswerDone, Question
from safetraind.worker.data.thinking import GIVEN, template_options, with_thinking
from safetraind.worker.inference.context_limit import PREFILL_TOKENS
from safetraind.worker.inference.prompt_cache import Conversation
from safetraind.worker.inference.stop_texts import StopTexts
from safetraind.worker.time_limit import TimeLimitReached, time_limit

_ROLES = ("system", "user", "assistant")
_LONGEST_KEEP_ALIVE = 1e9  # seconds
_TEMPLATE_SECONDS = 5.0  # it takes milliseconds; one that takes so long may never end


def question_from_json(data: Any) -> Question:
    """Return the question in a JSON object, with each field checked. Raises InvalidInput."""
    if not isinstance(data, Mapping) or not isinstance(data.get("messages"), list):
        raise InvalidInput("ask.malformed", field="messages")
    messages = tuple(_message(message) for message in data["messages"])
    if not messages or messages[-1]["role"] != "user":
        raise InvalidInput("ask.no_question")
    seed, keep_alive = data.get("seed"), data.get("keep_alive")
    return Question(
        messages=messages,
        max_tokens=int(_number(data, "max_tokens", 1, 1 << 20) or DEFAULT_MAX_TOKENS),
        temperature=_number(data, "temperature", 0, 100),
        top_p=_number(data, "top_p", 0, 1),
        seed=None if seed is None else int(_number(data, "seed", 0, (1 << 63) - 1)),
        base=bool(data.get("base", False)),
        adapter=str(data.get("adapter") or ""),
        model=str(data.get("model") or ""),
        keep_alive=None
        if keep_alive is None
        else _number(data, "keep_alive", 0, _LONGEST_KEEP_ALIVE),
        trust_remote_code=data.get("trust_remote_code") is True,
        thinking=str(data.get("thinking") or GIVEN),
        stop=_texts(data, "stop"),
    )


def encode_prompt(
    tokenizer: TokenizerWrapper, messages: Sequence[Mapping[str, str]], thinking: str = GIVEN
) -> list[int]:
    """Return the tokens of the conversation in the model's own chat template.

    `thinking`: the setting of that name, as the model was trained.
    If the template refuses a system turn, it is put at the beginning of the first user turn.
    Without a template the bare text is encoded. Raises InvalidInput where the template refuses
    the order of the turns.
    """
    if not tokenizer.has_chat_template:
        return list(tokenizer.encode("\n".join(message["content"] for message in messages)))
    try:
        with time_limit(_TEMPLATE_SECONDS):
            return _templated(tokenizer, messages, thinking)
    except TimeLimitReached as error:
        seconds = round(_TEMPLATE_SECONDS)
        raise InvalidInput("ask.template_slow", seconds=seconds) from error
    except TemplateError as error:
        if messages[0]["role"] == "system" and len(messages) > 1:
            return encode_prompt(tokenizer, _system_folded(messages), thinking)
        raise InvalidInput("ask.template_refuses") from error


def generate(
    model: nn.Module,
    tokenizer: TokenizerWrapper,
    prompt: Sequence[int],
    question: Question,
    *,
    conversation: Conversation | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[str | AnswerDone]:
    """Yield pieces of the answer as they are generated, and `AnswerDone` as the last.

    The part of the prompt that is in `conversation` is not computed again; the answer is added to
    it. The answer ends before the first of the question's stop texts, whose tokens are counted.
    `stop` is called between two tokens; an answer that it ends is marked cut and interrupted.
    Computes on the calling thread, which must be the one that loaded the model.
    """
    conversation = conversation or Conversation()
    began = time.perf_counter()
    cache, known = conversation.recall(model, prompt)
    first = last = 0.0
    generated: list[int] = []
    tokens, cut, interrupted = 0, True, False
    stop_texts = StopTexts(question.stop)
    for step in stream_generate(
        model,
        tokenizer,
        list(prompt[known:]),
        max_tokens=question.max_tokens,
        sampler=make_sampler(question.temperature, question.top_p, question.seed),
        prefill_step_size=PREFILL_TOKENS,
        prompt_cache=cache,
    ):
        last = time.perf_counter()
        first = first or last
        generated.append(step.token)
        cut = step.finish_reason != "stop"
        tokens = step.generation_tokens - (not cut)  # without the end-of-turn token
        if text := stop_texts.take(step.text):
            yield text
        if stop_texts.reached:
            cut = False
            break
        if step.finish_reason is None and stop():
            interrupted = True
            break
    if text := stop_texts.rest():
        yield text
    conversation.keep([*prompt, *generated], cache)
    rate = (tokens - 1) / (last - first) if tokens > 1 and last > first else 0.0
    yield AnswerDone(len(prompt), tokens, first - began, rate, cut, interrupted)


def make_sampler(
    temperature: float, top_p: float, seed: int | None
) -> Callable[[mx.array], mx.array]:
    """Return a function from log-probabilities (1, vocabulary) to a token (1,).

    Each call uses the next key of the sampler's own sequence; equal seeds give equal samples.
    """
    if temperature == 0:
        return lambda logprobs: mx.argmax(logprobs, axis=-1)
    key = mx.random.key(secrets.randbits(63) if seed is None else seed)

    def sample(logprobs: mx.array) -> mx.array:
        nonlocal key
        key, now = mx.random.split(key)
        if 0 < top_p < 1:
            logprobs = _nucleus(logprobs, top_p)
        return mx.random.categorical(logprobs / temperature, key=now)

    return sample


def _nucleus(logprobs: mx.array, top_p: float) -> mx.array:
    """Keep the smallest set of likeliest tokens whose probabilities reach `top_p`.

    Holtzman et al., The Curious Case of Neural Text Degeneration (2019), section 3.1.
    """
    order = mx.argsort(-logprobs, axis=-1)
    ranked = mx.take_along_axis(logprobs, order, axis=-1)
    probabilities = mx.exp(ranked.astype(mx.float32))
    before = mx.cumsum(probabilities, axis=-1) - probabilities
    kept = mx.where(before < top_p, ranked, -mx.inf)
    return mx.put_along_axis(logprobs, order, kept, axis=-1)


def _templated(
    tokenizer: TokenizerWrapper, messages: Sequence[Mapping[str, str]], thinking: str
) -> list[int]:
    turns = with_thinking([dict(message) for message in messages], thinking, tokenizer)
    options = template_options(thinking)
    return list(tokenizer.apply_chat_template(turns, add_generation_prompt=True, **options))


def _system_folded(messages: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    system, first, *rest = messages
    content = f"{system['content']}\n\n{first['content']}"
    return [{"role": first["role"], "content": content}, *rest]


def _message(data: Any) -> dict[str, str]:
    if not isinstance(data, Mapping):
        raise InvalidInput("ask.malformed", field="messages")
    role, content = data.get("role"), data.get("content")
    if role not in _ROLES or not isinstance(content, str) or not _is_unicode(content):
        raise InvalidInput("ask.malformed", field="messages")
    return {"role": role, "content": content}


def _is_unicode(text: str) -> bool:
    """Return whether the text has no lone surrogate, which JSON allows and tokenizers refuse."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _texts(data: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return the texts under `name`, none if absent or null. Raises InvalidInput."""
    value = data.get(name) or []
    if not isinstance(value, list) or not all(isinstance(t, str) and t for t in value):
        raise InvalidInput("ask.malformed", field=name)
    return tuple(value)


def _number(data: Mapping[str, Any], name: str, low: float, high: float) -> float:
    """Return the number under `name`, 0 (the default) if absent or null. Raises InvalidInput."""
    value = data.get(name) or 0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput("ask.malformed", field=name)
    if value and not low <= value <= high:
        raise InvalidInput("ask.out_of_range", field=name, low=low, high=high)
    return value

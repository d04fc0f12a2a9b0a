"""From a line of a training file to tokens, and which of them the model is to learn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from safetrain_shared.errors import InvalidInput
from safetrain_shared.findings import Status
from safetraind.worker.data.line_reader import Corpus
from safetraind.worker.data.schema import Sample, Unusable, form_of, judge, parse


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sample: its tokens, for each whether it is to be learned, and its line in the file."""

    line: int
    tokens: list[int]
    learned: list[bool]


class Refused(Exception):
    """The tokenizer or its chat template refuses a sample, for the reason that is the text."""

    def __init__(self, error: Exception) -> None:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        super().__init__(lines[0][:200])


def encode_file(path: str, tokenizer: TokenizerWrapper, mask_prompt: bool) -> Iterator[Encoded]:
    """All samples of a JSONL file in its order; blank lines are passed over.

    With `mask_prompt` only the assistant's turns are learned, all of them. Plain text is learned
    whole either way. Raises InvalidInput naming the line that holds no sample.
    """
    with Corpus(path) as corpus:
        for line in corpus:
            if not line.too_long and not line.content.strip():
                continue
            try:
                sample = parse(line.content)
                form = form_of(sample)
                wrong = [p for p in judge(sample, form) if p.status is Status.FAILED]
                if wrong:
                    raise InvalidInput("train.bad_sample", path=path, line=line.number)
                yield encode(line.number, sample, form, tokenizer, mask_prompt)
            except Unusable as error:
                raise InvalidInput("train.bad_sample", path=path, line=line.number) from error
            except Refused as error:
                reason = str(error)
                raise InvalidInput(
                    "train.template_refuses", path=path, line=line.number, reason=reason
                ) from error


def encode(
    line: int, sample: Sample, form: str, tokenizer: TokenizerWrapper, mask_prompt: bool
) -> Encoded:
    """The tokens of one sample of format `form` that `schema.judge` finds no fault with.

    Raises Refused. A chat template is a program of the model's author, and may raise anything.
    """
    try:
        return _encode(line, sample, form, tokenizer, mask_prompt)
    except Exception as error:
        raise Refused(error) from error


def _encode(
    line: int, sample: Sample, form: str, tokenizer: TokenizerWrapper, mask_prompt: bool
) -> Encoded:
    if form == "text":
        tokens = list(tokenizer.encode(sample["text"]))
        if tokens[-1:] != [tokenizer.eos_token_id]:
            tokens.append(tokenizer.eos_token_id)
        return Encoded(line, tokens, [True] * len(tokens))
    messages, tools = _conversation(sample, form), sample.get("tools")
    tokens = _rendered(tokenizer, messages, tools)
    if not mask_prompt:
        return Encoded(line, tokens, [True] * len(tokens))
    return Encoded(line, tokens, _answers(tokenizer, messages, tools, tokens))


def _conversation(sample: Sample, form: str) -> list[dict[str, Any]]:
    if form != "completions":
        messages: list[dict[str, Any]] = sample["messages"]
        return messages
    return [
        {"role": "user", "content": sample["prompt"]},
        {"role": "assistant", "content": sample["completion"]},
    ]


def _answers(
    tokenizer: TokenizerWrapper, messages: list[dict[str, Any]], tools: Any, tokens: list[int]
) -> list[bool]:
    """For each token of the conversation whether it belongs to a turn of the assistant.

    An answer goes from where the conversation up to it (with the assistant's header) ends to where
    the conversation with it ends. Where a template writes the beginning of a conversation otherwise
    than the whole, the common beginning decides.
    """
    learned, end = [False] * len(tokens), 0
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _rendered(tokenizer, messages[:place], tools, answer_next=True)
        start = max(end, _common(before, tokens))
        last = place == len(messages) - 1
        after = tokens if last else _rendered(tokenizer, messages[: place + 1], tools)
        end = max(start, _common(after, tokens))
        learned[start:end] = [True] * (end - start)
    return learned


def _rendered(
    tokenizer: TokenizerWrapper,
    messages: list[dict[str, Any]],
    tools: Any,
    *,
    answer_next: bool = False,
) -> list[int]:
    if not messages:
        return []
    return list(
        tokenizer.apply_chat_template(
            messages, tools=tools, add_generation_prompt=answer_next, return_dict=False
        )
    )


def _common(first: list[int], second: list[int]) -> int:
    """How many tokens both begin with alike."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))

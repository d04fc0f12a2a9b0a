"""Encodes a sample of a training file: its tokens, and which of them the model learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import orjson
from mlx_lm.tokenizer_utils import TokenizerWrapper

from safetrain_shared.errors import ArgValue, InvalidInput
from safetrain_shared.findings import Status
from safetraind.worker.data.fidelity import compare, has_calls, misprints, parsed
from safetraind.worker.data.line_reader import Corpus
from safetraind.worker.data.rendering import Answer, Message, Rendering, answers, render
from safetraind.worker.data.schema import (
    Problem,
    Sample,
    Unusable,
    content_of,
    form_of,
    is_learned,
    judge,
    parse,
    shown,
)
from safetraind.worker.data.thinking import GIVEN, KEEP, template_options, with_thinking
from safetraind.worker.time_limit import TimeLimitReached, time_limit

# A template takes milliseconds; one that takes so long may never end.
SAMPLE_SECONDS = 5.0
_MOST_SPECIAL = 64  # of a tokenizer's special tokens: some have hundreds that are reserved
_MESSAGE_SECONDS = 0.1  # each answer is marked and rendered again


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sample: its tokens, for each whether it is learned, and its line in the file.

    `problems`: differences between the model's input and the sample.
    """

    line: int
    tokens: list[int]
    learned: list[bool]
    problems: tuple[Problem, ...] = ()


class Refused(Exception):
    """The tokenizer or its chat template refuses a sample. The text is the reason."""

    def __init__(self, error: Exception) -> None:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        super().__init__(shown(lines[0], 200))


class TooSlow(Refused):
    """The chat template needs more than SAMPLE_SECONDS for a sample."""

    def __init__(self) -> None:
        super().__init__(TimeoutError("still running"))


@dataclass(frozen=True, slots=True)
class Encoder:
    """Encodes samples for one model.

    `mask_prompt`: only the assistant's turns are learned, all of them; plain text is learned whole
    either way. `vocabulary`: rows of the model's embedding, 0 where they are not known. `thinking`:
    the setting of that name.
    """

    tokenizer: TokenizerWrapper
    mask_prompt: bool = True
    vocabulary: int = 0
    thinking: str = GIVEN

    def encode_file(self, path: str) -> Iterator[Encoded]:
        """Yield the samples of a JSONL file in its order, without its blank lines.

        Raises InvalidInput naming a line that holds no sample, or whose rendering for the model
        differs from the line.
        """
        with Corpus(path) as corpus:
            for line in corpus:
                if not line.too_long and not line.content.strip():
                    continue
                try:
                    sample = parse(line.content)
                    form = form_of(sample)
                    if any(p.status is Status.FAILED for p in judge(sample, form)):
                        raise InvalidInput("train.bad_sample", path=path, line=line.number)
                    encoded = self.encode(line.number, sample, form)
                except Unusable as error:
                    raise InvalidInput("train.bad_sample", path=path, line=line.number) from error
                except Refused as error:
                    raise InvalidInput(
                        "train.template_refuses", path=path, line=line.number, reason=str(error)
                    ) from error
                _refuse_differing(path, encoded)
                yield encoded

    def encode(self, line: int, sample: Sample, form: str) -> Encoded:
        """Return the tokens of one sample of format `form` that `schema.judge` finds no fault with.

        Raises Refused. A chat template is a program of the model's author, and may raise anything.
        """
        encode = self._text if form == "text" else partial(self._chat, form=form)
        try:
            with time_limit(SAMPLE_SECONDS + _MESSAGE_SECONDS * _messages(sample)):
                return encode(line, sample)
        except TimeLimitReached as error:
            raise TooSlow from error
        except Exception as error:
            raise Refused(error) from error

    def _text(self, line: int, sample: Sample) -> Encoded:
        tokens = list(self.tokenizer.encode(sample["text"]))
        end, problems = end_of_text(self.tokenizer), list[Problem]()
        if end is None:
            problems.append(Problem("data.no_end", Status.WARNING))
        elif tokens[-1:] != [end] and not _ends_with(self.tokenizer, sample, end):
            tokens.append(end)
        return self._checked(line, tokens, [True] * len(tokens), problems)

    def _chat(self, line: int, sample: Sample, form: str) -> Encoded:
        messages = with_thinking(_conversation(sample, form), self.thinking, self.tokenizer)
        options = template_options(self.thinking)
        rendering = _rendered(self.tokenizer, messages, sample.get("tools"), options)
        turns = answers(rendering)
        problems = [*compare(rendering, turns), *_control_tokens(self.tokenizer, messages)]
        shortened = _without_thinking(problems) if self.thinking == KEEP else ()
        tokens, places = _tokenized(self.tokenizer, rendering.text)
        learned = [not self.mask_prompt] * len(tokens)
        for turn in turns:
            wanted = is_learned(rendering.messages[turn.place]) and turn.place not in shortened
            inside = [n for n, place in enumerate(places) if _overlap(place, turn)]
            for n in inside:
                learned[n] = wanted
            if wanted and turn.written and not inside:
                args = {"place": turn.place + 1}
                problems.append(Problem("data.answer_not_learned", Status.WARNING, args))
        ends = self.tokenizer.eos_token_ids
        if any(learned) and not any(w and t in ends for t, w in zip(tokens, learned, strict=True)):
            problems.append(Problem("data.no_end", Status.WARNING))
        return self._checked(line, tokens, learned, problems)

    def _checked(
        self, line: int, tokens: list[int], learned: list[bool], problems: list[Problem]
    ) -> Encoded:
        """Return the sample with no beginning or end token twice in a row, and with a problem for
        each fault of its tokens.
        """
        tokenizer, single = self.tokenizer, {self.tokenizer.bos_token_id}
        single |= set(tokenizer.eos_token_ids)
        twice = [n for n in range(1, len(tokens)) if tokens[n] == tokens[n - 1] in single]
        if twice:
            args = {"token": shown(str(tokenizer.convert_ids_to_tokens(tokens[twice[0]])))}
            problems.append(Problem("data.doubled_token", Status.WARNING, args))
            kept = [n for n in range(len(tokens)) if n not in set(twice)]
            tokens, learned = [tokens[n] for n in kept], [learned[n] for n in kept]
        if _unknown(tokenizer, tokens):
            args = {"token": shown(str(tokenizer.unk_token))}
            problems.append(Problem("data.unknown_token", Status.WARNING, args))
        beyond = max(tokens, default=0)
        if 0 < self.vocabulary <= beyond:
            token = shown(str(tokenizer.convert_ids_to_tokens(beyond)))
            sizes = {"number": beyond, "size": self.vocabulary}
            problems.append(Problem("data.token_beyond", args={"token": token, **sizes}))
        if not any(learned[1:]):
            problems.append(Problem("data.nothing_learned", Status.WARNING))
        return Encoded(line, tokens, learned, tuple(problems))


def _control_tokens(tokenizer: TokenizerWrapper, messages: list[Message]) -> Iterator[Problem]:
    """Yield a problem for the first message whose text holds a token that ends or begins turns.

    One at its end is no fault: it is learned once.
    """
    tokens = [token for token in tokenizer.all_special_tokens if token][:_MOST_SPECIAL]
    for place, message in enumerate(messages, 1):
        content = content_of(message).rstrip()
        for token in tokens:
            if token in content and token in content.removesuffix(token):
                args: dict[str, ArgValue] = {"place": place, "token": shown(token)}
                yield Problem("data.control_token", Status.WARNING, args)
                return


def _unknown(tokenizer: TokenizerWrapper, tokens: list[int]) -> bool:
    """Return whether the token for what the tokenizer does not know is among them.

    Where it is the token of an end or a beginning too, none says.
    """
    unknown = tokenizer.unk_token_id
    others = {tokenizer.bos_token_id, tokenizer.pad_token_id, *tokenizer.eos_token_ids}
    return unknown is not None and unknown not in others and unknown in tokens


def _refuse_differing(path: str, encoded: Encoded) -> None:
    """Raise InvalidInput where the model's input differs from the line."""
    for problem in encoded.problems:
        if problem.status is Status.FAILED:
            where: dict[str, ArgValue] = {"path": path, "line": encoded.line}
            where["cause"] = problem.code
            raise InvalidInput("train.sample_differs", **where, **problem.args)


def _messages(sample: Sample) -> int:
    messages = sample.get("messages")
    return len(messages) if isinstance(messages, list) else 0


def end_of_text(tokenizer: TokenizerWrapper) -> int | None:
    """Return the token that ends a text: the tokenizer's own, else the first that the model stops
    at.
    """
    own: int | None = tokenizer.eos_token_id
    return own if own is not None else min(tokenizer.eos_token_ids, default=None)


def _ends_with(tokenizer: TokenizerWrapper, sample: Sample, end: int) -> bool:
    """Return whether the text itself ends with an end-of-text token, white space aside."""
    return bool(sample["text"].rstrip().endswith(str(tokenizer.convert_ids_to_tokens(end))))


def _conversation(sample: Sample, form: str) -> list[Message]:
    """Return the messages, each content of several parts joined to one text, as mlx-lm joins
    them.
    """
    if form == "completions":
        return [
            {"role": "user", "content": sample["prompt"]},
            {"role": "assistant", "content": sample["completion"]},
        ]
    return [
        {**m, "content": content_of(m)} if isinstance(m.get("content"), list) else m
        for m in sample["messages"]
    ]


def _without_thinking(problems: list[Problem]) -> set[int]:
    """Return the numbers, from 0, of answers that the template renders in part only.

    `problems` then gets a note that they are not learned.
    """
    places = set()
    for number, problem in enumerate(problems):
        if problem.code == "data.answer_shortened":
            places.add(int(str(problem.args["place"])) - 1)
            problems[number] = Problem("data.thinking_stripped", problem.status, problem.args)
    return places


def _rendered(
    tokenizer: TokenizerWrapper, messages: list[Message], tools: Any, options: Mapping[str, bool]
) -> Rendering:
    """Return the conversation as the template renders it.

    Templates differ in whether they take a call's arguments as an object or as text, and an answer
    that only calls as null or empty: the sample's own form first, then the others, until one is
    written without a misprint and with its calls.
    """
    first: Rendering | None = None
    refusal: Exception | None = None
    for calls, content in product((None, parsed, _dumped), (None, "", "null")):
        form = [_in_form(message, calls, content) for message in messages]
        if (calls or content is not None) and form == messages:
            continue
        try:
            text = render(tokenizer, form, tools, options)
            rendering = Rendering(tokenizer, form, tools, text, options)
        except Exception as error:  # a template may raise anything
            refusal = refusal or error
            continue
        first = first or rendering
        if not misprints(rendering) and all(has_calls(m, rendering.text) for m in form):
            return rendering
    if first is None:
        assert refusal is not None
        raise refusal
    return first


Arguments = Callable[[Any], Any]


def _in_form(message: Message, arguments: Arguments | None, content: str | None) -> Message:
    """Return the message with its calls' arguments in another form. An answer of calls alone gets
    "" or None, where `content` is "" or "null".
    """
    calls = message.get("tool_calls")
    if calls and arguments is not None:
        message = {**message, "tool_calls": [_with_arguments(call, arguments) for call in calls]}
    if calls and content is not None and not message.get("content"):
        message = {**message, "content": None if content else ""}
    return message


def _with_arguments(call: dict[str, Any], arguments: Arguments) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or "arguments" not in function:
        return call
    return {**call, "function": {**function, "arguments": arguments(function["arguments"])}}


def _dumped(arguments: Any) -> Any:
    return arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()


def _tokenized(tokenizer: TokenizerWrapper, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the tokens of a rendered text, and the range of characters of each.

    Tokenizers trim white space off what they report, and report one place for all bytes of a
    character; so a token is taken to begin where the one before it ends.
    """
    if not tokenizer.is_fast:
        return _tokenized_slowly(tokenizer, text)
    found = tokenizer._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    places, end = [], 0
    for start, stop in found["offset_mapping"]:
        places.append((min(start, end), stop))
        end = max(end, stop)
    return list(found["input_ids"]), places


def _tokenized_slowly(
    tokenizer: TokenizerWrapper, text: str
) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the same for a tokenizer without offsets, by the lengths of decoded texts."""
    tokens = list(tokenizer.encode(text, add_special_tokens=False))
    places, end = [], 0
    for count in range(1, len(tokens) + 1):
        start, end = end, max(end, len(tokenizer.decode(tokens[:count])))
        places.append((start, end))
    return tokens, places


def _overlap(place: tuple[int, int], turn: Answer) -> bool:
    """Return whether a token's characters overlap the turn's."""
    start, end = place
    return (start < turn.end and end > turn.start) or turn.start < start == end < turn.end

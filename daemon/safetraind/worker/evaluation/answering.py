"""Greedy answers in batches, each kept on the disk as soon as it is whole."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import BatchGenerator
from mlx_lm.tokenizer_utils import TokenizerWrapper

from safetraind.storage.durable import read_json, write_json
from safetraind.storage.manifest import sha256
from safetraind.worker.data.thinking import GIVEN, without_thinking
from safetraind.worker.evaluation.question_set import Question
from safetraind.worker.inference.generation import encode_prompt
from safetraind.worker.loading import LoadedModel, attach_adapter, detach_adapter

BATCH = 32  # questions answered at once
BATCH_TOKENS = 16_384  # of a batch, padding and answers included: bounds the memory of its cache
WEIGHTS = "adapters.safetensors"


class Watcher(Protocol):
    """Receives the progress of an evaluation, and may end it."""

    def phase(self, name: str) -> None:
        """Note the phase that begins: one of `events.PHASES`."""

    def kept(self, answered: int, total: int, eta_seconds: float) -> None:
        """Note that `answered` of `total` questions are answered and stored."""

    def check(self) -> None:
        """Look for a reason to end the evaluation, between two tokens, and raise it."""


class Asker:
    """Asks models the same questions. Answers stored before a kill are not asked for again."""

    def __init__(
        self, folder: Path, most: int, total: int, watcher: Watcher, thinking: str = GIVEN
    ) -> None:
        """`folder`: the place of the answers. `most`: the limit of one answer, in tokens. `total`:
        the number of questions. `thinking`: the training's setting of that name.
        """
        self._folder, self._most, self._thinking = folder, most, thinking
        self._total, self._watcher = total, watcher
        self._answered = self._asked = 0
        self._began = time.monotonic()

    def answers(
        self,
        loaded: LoadedModel,
        who: str,
        adapter: Path | None,
        questions: Sequence[Question],
    ) -> list[str]:
        """Return the answers of `loaded` with that adapter (None: without) in the order of
        `questions`.

        The model has no adapter before and after. `who` names the kept file. Raises NotFound or
        InvalidInput for an adapter that doesn't fit.
        """
        prompts = [encode_prompt(loaded.tokenizer, q.messages, self._thinking) for q in questions]
        kept = self._folder / f"answers-{who}-{self._key(loaded, adapter, questions)}.json"
        answers: list[str] = read_json(kept) or []
        if len(answers) < len(questions) and adapter is not None:
            attach_adapter(loaded.model, adapter)
        loaded.model.eval()
        done_before = self._answered
        for place, batch in batched(prompts, self._most):
            end = place + len(batch)
            if end > len(answers):
                check = self._watcher.check
                new = answered(loaded.model, loaded.tokenizer, batch, self._most, check)
                answers = answers[:place] + new
                self._folder.mkdir(parents=True, exist_ok=True)
                write_json(kept, answers)
                self._asked += len(batch)
            self._answered = done_before + end
            self._tell()
        detach_adapter(loaded.model)
        return answers

    def _tell(self) -> None:
        pace = (time.monotonic() - self._began) / max(1, self._asked)
        left = self._total - self._answered
        self._watcher.kept(self._answered, self._total, pace * left)

    def _key(self, loaded: LoadedModel, adapter: Path | None, questions: Sequence[Question]) -> str:
        """Return a hash of all that the answers depend on."""
        what = [
            str(loaded.folder),
            sha256(adapter / WEIGHTS) if adapter is not None else "",
            [[list(map(dict, q.messages)), q.expected, q.match] for q in questions],
            [self._most, BATCH, BATCH_TOKENS, self._thinking],
        ]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def batched(prompts: Sequence[list[int]], most: int) -> Iterator[tuple[int, list[list[int]]]]:
    """Cut prompts (token ids) into batches of at most BATCH rows and BATCH_TOKENS padded tokens.

    Depends on the prompts and `most` (tokens of an answer) alone, so that a batch that is answered
    again, after a kill, has the same rows and comes out the same.
    """
    begin, longest = 0, 0
    for place, prompt in enumerate(prompts):
        longest = max(longest, len(prompt))
        rows = place - begin + 1
        if place > begin and (rows > BATCH or rows * (longest + most) > BATCH_TOKENS):
            yield begin, list(prompts[begin:place])
            begin, longest = place, len(prompt)
    if prompts:
        yield begin, list(prompts[begin:])


def answered(
    model: nn.Module,
    tokenizer: TokenizerWrapper,
    prompts: list[list[int]],
    max_tokens: int,
    between_tokens: Callable[[], None] = lambda: None,
) -> list[str]:
    """Return greedy answers to prompts (token ids), of at most `max_tokens` tokens, without leading
    thinking. What `between_tokens` raises ends it.
    """
    generator = BatchGenerator(
        model,
        stop_tokens=[[token] for token in tokenizer.eos_token_ids],
        completion_batch_size=len(prompts),
        prefill_batch_size=len(prompts),
    )
    try:
        places = generator.insert(prompts, [max_tokens] * len(prompts))
        tokens: dict[int, list[int]] = {place: [] for place in places}
        while responses := generator.next_generated():
            for response in responses:
                if response.finish_reason != "stop":
                    tokens[response.uid].append(response.token)
            between_tokens()
    finally:
        generator.close()
        mx.clear_cache()
    return [without_thinking(tokenizer.decode(tokens[place])).strip() for place in places]


def longest_answer(
    tokenizer: TokenizerWrapper, texts: Sequence[str], *, fewest: int = 32, most: int = 512
) -> int:
    """Return one and a half times the tokens of the longest of `texts`, within bounds."""
    longest = max((len(tokenizer.encode(text)) for text in texts), default=0)
    return min(max(longest * 3 // 2, fewest), most)

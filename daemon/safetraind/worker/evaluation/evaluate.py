"""The worker role `evaluate`: base and adapter answer the same questions, and a verdict is made.

Reads `evaluate_request.json` in its run folder: {"model", "adapters": {name: folder or ""},
"questions", "train", "folder", "max_tokens" (0: as the data's answers need), "limit",
"trust_remote_code"}. Adds {"phase", "done"}
lines to its result file's `.partial`; last the evaluation, or {"error"}. Each answered batch is
kept in `folder`, so that an evaluation that was killed goes on where it was, with the same answers.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.nn as nn
from mlx_lm.generate import BatchGenerator
from mlx_lm.tokenizer_utils import TokenizerWrapper

from safetrain_shared.errors import InvalidInput, NoRoom, SafetrainError, error_to_dict
from safetrain_shared.paths import RunFolder
from safetraind.storage.durable import read_json, write_json
from safetraind.storage.manifest import sha256
from safetraind.worker.data.duplicate_index import Leakage
from safetraind.worker.data.line_reader import Corpus
from safetraind.worker.data.text_normalisation import key_of, words_of
from safetraind.worker.evaluation.match import score
from safetraind.worker.evaluation.question_set import read_questions
from safetraind.worker.evaluation.verdict import Verdict, compare
from safetraind.worker.inference.generation import encode_prompt
from safetraind.worker.loading import LoadedModel, attach_adapter, detach_adapter, load

FORMAT = 1
BATCH = 32  # questions answered at once
BATCH_TOKENS = 16_384  # of a batch, padding and answers included: bounds the memory of its cache
# An answer may have half as many tokens again as the longest of the training data, within bounds.
_FEWEST_TOKENS, _MOST_TOKENS = 32, 512
_TELL_SECONDS = 0.5  # between two lines of progress
_LOOKED_AT = 2000  # lines of training data
BASE, BEST = "base", "adapter"

EmitPhase = Callable[[str, float], None]


def main(arguments: Sequence[str]) -> int:
    """Evaluates as the run folder asks. What cannot be evaluated is a result, not a failure."""
    run = RunFolder(Path(arguments[0]))
    request = read_json(run.root / "evaluate_request.json")
    with Path(f"{run.probe}.partial").open("w", encoding="utf-8") as lines:
        last = ("", 0.0)

        def tell(phase: str, done: float) -> None:
            nonlocal last
            now = time.monotonic()
            if phase == last[0] and now - last[1] < _TELL_SECONDS:
                return
            last = (phase, now)
            lines.write(json.dumps({"phase": phase, "done": done}) + "\n")
            lines.flush()

        try:
            result = Evaluation(request, tell).run()
        except SafetrainError as error:
            result = {"error": error_to_dict(error)}
        except OSError as error:
            path, reason = str(error.filename or request["folder"]), error.strerror or str(error)
            result = {"error": error_to_dict(NoRoom("disk.refused", path=path, reason=reason))}
    write_json(run.probe, result)
    return 0


class Evaluation:
    """One evaluation of a job's adapters against their base."""

    def __init__(self, request: Mapping[str, Any], tell: EmitPhase) -> None:
        self._request = request
        self._tell = tell
        self._questions = read_questions(request["questions"], int(request.get("limit", 0)))
        self._folder = Path(request["folder"])

    def run(self) -> dict[str, Any]:
        """Everything; returns the evaluation, which is also in `evaluation.json`."""
        self._tell("inspecting", -1.0)
        self._refuse_leaked()
        self._tell("loading", -1.0)
        loaded = load(
            self._request["model"],
            trust_remote_code=bool(self._request.get("trust_remote_code", False)),
        )
        adapters: Mapping[str, str] = {BASE: "", **self._request["adapters"]}
        answers = {}
        for place, (name, folder) in enumerate(adapters.items()):
            begin, share = place / len(adapters), 1 / len(adapters)
            answers[name] = self._answers(loaded, name, folder, begin, share)
        result = self._judged(answers)
        write_json(self._folder / "evaluation.json", result)
        return result

    def _refuse_leaked(self) -> None:
        """A question of the training data, or nearly one, tells nothing of what was learned.

        Raises InvalidInput with the number of them and the first.
        """
        index = Leakage()
        index.begin("")
        for number, question in enumerate(self._questions):
            words = words_of(question.text)
            index.add(key_of(words), number, words)
        index.freeze()
        leaked: set[int] = set()
        with Corpus(self._request["train"]) as lines:
            for line in lines:
                for text in turns_of(line.content, "user"):
                    words = words_of(text)
                    found = index.find(key_of(words), words)
                    if found is not None:
                        leaked.add(found.line)
        if leaked:
            first = self._questions[min(leaked)].text
            args = {"count": len(leaked), "path": self._request["questions"], "first": first[:120]}
            raise InvalidInput("evaluate.leaked", **args)

    def _answers(
        self, loaded: LoadedModel, name: str, folder: str, begin: float, share: float
    ) -> list[str]:
        """Greedy answers by one adapter (or the base), those of finished batches from before."""
        batches, most = self._batches(loaded)
        key = self._key(folder, most)
        kept = self._folder / f"answers-{name}-{key}.json"
        answers: list[str] = read_json(kept) or []
        if folder:
            attach_adapter(loaded.model, Path(folder))
        loaded.model.eval()
        for place, prompts in batches:
            if place + len(prompts) <= len(answers):
                continue
            kept_so_far = answers[:place]

            def told(done: float, place: int = place, rows: int = len(prompts)) -> None:
                self._tell("asking", begin + share * (place + rows * done) / len(self._questions))

            told(0.0)
            answers = kept_so_far + answered(
                loaded.model, loaded.tokenizer, prompts, most, on_progress=told
            )
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(kept, answers)
        detach_adapter(loaded.model)
        return answers

    def _batches(self, loaded: LoadedModel) -> tuple[list[tuple[int, list[list[int]]]], int]:
        """The prompts in batches, each with its first question's place; the most tokens allowed."""
        prompts = [encode_prompt(loaded.tokenizer, q.messages) for q in self._questions]
        most = int(self._request["max_tokens"]) or self._longest_answer(loaded.tokenizer)
        return list(batched(prompts, most)), most

    def _longest_answer(self, tokenizer: TokenizerWrapper) -> int:
        """Half as many tokens again as the longest answer that was expected or trained on."""
        with Corpus(self._request["train"]) as lines:
            trained = [
                text
                for line in itertools.islice(lines, _LOOKED_AT)
                for text in turns_of(line.content, "assistant")
            ]
        expected = [str(one) for question in self._questions for one in question.expected]
        longest = max(len(tokenizer.encode(text)) for text in [*trained, *expected])
        return min(max(longest * 3 // 2, _FEWEST_TOKENS), _MOST_TOKENS)

    def _key(self, folder: str, most: int) -> str:
        """What answers depend on: model, adapter weights, questions, and the longest answer."""
        weights = Path(folder) / "adapters.safetensors"
        what = [
            self._request["model"],
            sha256(weights) if folder else "",
            [[list(map(dict, q.messages)), q.expected, q.match] for q in self._questions],
            [most, BATCH, BATCH_TOKENS],
        ]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]

    def _judged(self, answers: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        scores = {
            name: [
                score(q.match, q.expected, a) for q, a in zip(self._questions, said, strict=True)
            ]
            for name, said in answers.items()
        }
        verdict = compare(scores[BASE], scores[BEST])
        return {
            "format": FORMAT,
            "questions": self._request["questions"],
            "weak": any(question.match == "similarity" for question in self._questions),
            "verdict": _plain(verdict),
            "scores": {name: sum(found) / len(found) for name, found in scores.items()},
            "answers": [
                {
                    "question": question.text,
                    "expected": [str(one) for one in question.expected],
                    "match": question.match,
                    "base": answers[BASE][n],
                    "adapter": answers[BEST][n],
                    "base_score": scores[BASE][n],
                    "adapter_score": scores[BEST][n],
                }
                for n, question in enumerate(self._questions)
            ],
        }


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
    *,
    on_progress: Callable[[float], None],
) -> list[str]:
    """Greedy answers to prompts (token ids). `on_progress` is told 0 to 1, at each token."""
    generator = BatchGenerator(
        model,
        stop_tokens=[[token] for token in tokenizer.eos_token_ids],
        completion_batch_size=len(prompts),
        prefill_batch_size=len(prompts),
    )
    try:
        places = generator.insert(prompts, [max_tokens] * len(prompts))
        tokens: dict[int, list[int]] = {place: [] for place in places}
        steps = 0
        while responses := generator.next_generated():
            for response in responses:
                if response.finish_reason != "stop":
                    tokens[response.uid].append(response.token)
            steps += 1
            on_progress(steps / max_tokens)
    finally:
        generator.close()
    return [tokenizer.decode(tokens[place]).strip() for place in places]


def turns_of(line: bytes, role: str) -> list[str]:
    """What `role` says in a line of training data; nothing where it cannot be read."""
    try:
        record = json.loads(line)
        if "prompt" in record:
            return [str(record["prompt" if role == "user" else "completion"])]
        return [str(m["content"]) for m in record["messages"] if m["role"] == role]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def _plain(verdict: Verdict) -> dict[str, Any]:
    return {
        "judgement": str(verdict.judgement),
        "questions": verdict.questions,
        "base": verdict.first,
        "adapter": verdict.second,
        "difference": verdict.difference,
        "low": verdict.low,
        "high": verdict.high,
        "p_value": verdict.p_value,
        "needed": verdict.needed,
    }

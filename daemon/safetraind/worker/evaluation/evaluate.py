"""The worker role `evaluate`: base and adapter answer the same questions, and a verdict is made.

Reads `evaluate_request.json` in its run folder: {"model", "adapters": {name: folder or ""},
"questions", "train", "folder", "max_tokens", "limit", "trust_remote_code"}. Adds {"phase", "done"}
lines to its result file's `.partial`; last the evaluation, or {"error"}. Each answered batch is
kept in `folder`, so that an evaluation that was killed goes on where it was, with the same answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.nn as nn
from mlx_lm.generate import batch_generate
from mlx_lm.tokenizer_utils import TokenizerWrapper

from safetrain_shared.errors import InvalidInput, NoRoom, SafetrainError, error_to_dict
from safetrain_shared.paths import RunFolder
from safetraind.storage.durable import read_json, write_json
from safetraind.storage.manifest import sha256
from safetraind.worker.data.duplicate_index import Leakage
from safetraind.worker.data.line_reader import Corpus
from safetraind.worker.data.text_normalisation import key_of, words_of
from safetraind.worker.evaluation.match import score
from safetraind.worker.evaluation.question_set import Question, read_questions
from safetraind.worker.evaluation.verdict import Verdict, compare
from safetraind.worker.inference.generation import encode_prompt
from safetraind.worker.loading import LoadedModel, attach_adapter, detach_adapter, load

FORMAT = 1
BATCH = 8  # questions answered at once; fixed, so that a batch answered again comes out the same
BASE, BEST = "base", "adapter"

EmitPhase = Callable[[str, float], None]


def main(arguments: Sequence[str]) -> int:
    """Evaluates as the run folder asks. What cannot be evaluated is a result, not a failure."""
    run = RunFolder(Path(arguments[0]))
    request = read_json(run.root / "evaluate_request.json")
    with Path(f"{run.probe}.partial").open("w", encoding="utf-8") as lines:

        def tell(phase: str, done: float) -> None:
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
        self._refuse_leaked()
        self._tell("loading", 0.0)
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
                for text in _user_turns(line.content):
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
        kept = self._folder / f"answers-{name}-{self._key(folder)}.json"
        answers: list[str] = read_json(kept) or []
        answers = answers[: len(answers) // BATCH * BATCH]
        if folder:
            attach_adapter(loaded.model, Path(folder))
        loaded.model.eval()
        for place in range(len(answers), len(self._questions), BATCH):
            self._tell("asking", begin + share * place / len(self._questions))
            batch = self._questions[place : place + BATCH]
            answers += answered(
                loaded.model, loaded.tokenizer, batch, int(self._request["max_tokens"])
            )
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(kept, answers)
        detach_adapter(loaded.model)
        return answers

    def _key(self, folder: str) -> str:
        """What answers depend on: model, adapter weights, questions, and their longest length."""
        weights = Path(folder) / "adapters.safetensors"
        what = [
            self._request["model"],
            sha256(weights) if folder else "",
            [[list(map(dict, q.messages)), q.expected, q.match] for q in self._questions],
            self._request["max_tokens"],
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


def answered(
    model: nn.Module, tokenizer: TokenizerWrapper, questions: Sequence[Question], max_tokens: int
) -> list[str]:
    """Greedy answers to a batch of questions, each without what its model thought around it."""
    prompts = [encode_prompt(tokenizer, question.messages) for question in questions]
    texts: list[str] = batch_generate(model, tokenizer, prompts, max_tokens=max_tokens).texts
    return [text.strip() for text in texts]


def _user_turns(line: bytes) -> list[str]:
    """What is asked in a line of training data; nothing where it cannot be read."""
    try:
        record = json.loads(line)
        if "prompt" in record:
            return [str(record["prompt"])]
        return [str(m["content"]) for m in record["messages"] if m["role"] == "user"]
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

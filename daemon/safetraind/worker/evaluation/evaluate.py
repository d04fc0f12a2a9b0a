"""The worker role `evaluate`: base and adapter answer the same questions, and a verdict is made.

`worker_messages.evaluate_messages` has its request and its result. Each answered batch is kept, so
that an evaluation that was killed goes on where it was, with the same answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlx.nn as nn
from mlx_lm.generate import batch_generate
from mlx_lm.tokenizer_utils import TokenizerWrapper

from safetrain_shared.errors import InvalidInput
from safetraind.storage import documents
from safetraind.storage.durable import read_json, write_json
from safetraind.storage.manifest import sha256
from safetraind.worker.data.duplicate_index import Leakage
from safetraind.worker.data.line_reader import Corpus
from safetraind.worker.data.text_normalisation import key_of, words_of
from safetraind.worker.evaluation.match import score
from safetraind.worker.evaluation.question_set import Question, read_questions
from safetraind.worker.evaluation.verdict import Verdict, compare
from safetraind.worker.exchange import Tell, answer, read_request
from safetraind.worker.inference.generation import encode_prompt
from safetraind.worker.loading import LoadedModel, attach_adapter, detach_adapter, load
from safetraind.worker_messages.evaluate_messages import (
    EVALUATE,
    EvaluatedAnswer,
    EvaluateRequest,
    Evaluation,
    JudgedAnswers,
)
from safetraind.worker_messages.role import Progress

BATCH = 8  # questions answered at once; fixed, so that a batch answered again comes out the same
BASE, BEST = "base", "adapter"


def main(arguments: Sequence[str]) -> int:
    """Evaluate as the run folder asks. What cannot be evaluated is a result, not a failure."""
    request = read_request(arguments[0], EVALUATE.name, EvaluateRequest)
    answer(arguments[0], lambda tell: Evaluator(request, tell).run(), output=request.folder)
    return 0


class Evaluator:
    """One evaluation of a job's adapter against its base."""

    def __init__(self, request: EvaluateRequest, tell: Tell) -> None:
        self._request = request
        self._tell = tell
        self._questions = read_questions(request.questions, request.limit)
        self._folder = Path(request.folder)

    def run(self) -> Evaluation:
        """Do everything and return the evaluation, which is also in `evaluation.json`."""
        self._refuse_leaked()
        self._tell(Progress("loading", 0.0))
        loaded = load(self._request.model, trust_remote_code=self._request.trust_remote_code)
        adapters = {BASE: "", BEST: self._request.adapter}
        answers = {}
        for place, (name, folder) in enumerate(adapters.items()):
            begin, share = place / len(adapters), 1 / len(adapters)
            answers[name] = self._answers(loaded, name, folder, begin, share)
        result = self._judged(answers)
        documents.write(self._folder / "evaluation.json", result)
        return result

    def _refuse_leaked(self) -> None:
        """Raise InvalidInput where questions stand, or nearly stand, in the training data.

        Their answers would show memory of the data and not what was learned. The error names their
        number and the first of them.
        """
        index = Leakage()
        index.begin("")
        for number, question in enumerate(self._questions):
            words = words_of(question.text)
            index.add(key_of(words), number, words)
        index.freeze()
        leaked: set[int] = set()
        with Corpus(self._request.train) as lines:
            for line in lines:
                for text in _user_turns(line.content):
                    words = words_of(text)
                    found = index.find(key_of(words), words)
                    if found is not None:
                        leaked.add(found.line)
        if leaked:
            first = self._questions[min(leaked)].text
            path = self._request.questions
            raise InvalidInput("evaluate.leaked", count=len(leaked), path=path, first=first[:120])

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
            done = begin + share * place / len(self._questions)
            self._tell(Progress("asking", done))
            batch = self._questions[place : place + BATCH]
            answers += answered(loaded.model, loaded.tokenizer, batch, self._request.max_tokens)
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(kept, answers)
        detach_adapter(loaded.model)
        return answers

    def _key(self, folder: str) -> str:
        """What answers depend on: model, adapter weights, questions, and their longest length."""
        weights = Path(folder) / "adapters.safetensors"
        what = [
            self._request.model,
            sha256(weights) if folder else "",
            [[list(map(dict, q.messages)), q.expected, q.match] for q in self._questions],
            self._request.max_tokens,
        ]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]

    def _judged(self, answers: Mapping[str, Sequence[str]]) -> Evaluation:
        scores = {
            name: [
                score(q.match, q.expected, a) for q, a in zip(self._questions, given, strict=True)
            ]
            for name, given in answers.items()
        }
        return Evaluation(
            questions=self._request.questions,
            weak=any(question.match == "similarity" for question in self._questions),
            verdict=_judged_answers(compare(scores[BASE], scores[BEST])),
            scores={name: sum(found) / len(found) for name, found in scores.items()},
            answers=tuple(
                EvaluatedAnswer(
                    question=question.text,
                    expected=tuple(str(one) for one in question.expected),
                    match=question.match,
                    base=answers[BASE][n],
                    adapter=answers[BEST][n],
                    base_score=scores[BASE][n],
                    adapter_score=scores[BEST][n],
                )
                for n, question in enumerate(self._questions)
            ),
        )


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


def _judged_answers(verdict: Verdict) -> JudgedAnswers:
    return JudgedAnswers(
        judgement=str(verdict.judgement),
        questions=verdict.questions,
        base=verdict.first,
        adapter=verdict.second,
        difference=verdict.difference,
        low=verdict.low,
        high=verdict.high,
        p_value=verdict.p_value,
        needed=verdict.needed,
    )

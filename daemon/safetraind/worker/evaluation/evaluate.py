"""Evaluates a trained job: base and adapter answer the same questions, and a verdict is made.

The role `evaluate` does it in a job of its own; `after_training` does it at the end of a training.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx
from mlx_lm.tokenizer_utils import TokenizerWrapper

from safetrain_shared.errors import NotFound
from safetrain_shared.evaluations import (
    CheckpointScore,
    EvaluatedAnswer,
    Evaluation,
    EvaluationSpec,
    TaskScore,
    Verdict,
)
from safetrain_shared.jobs import JobSpec
from safetrain_shared.paths import ADAPTERS, EVALUATION, EVALUATION_RESULT
from safetraind.storage import documents, training_state
from safetraind.storage.manifest import read_manifest
from safetraind.worker.data.line_reader import Corpus
from safetraind.worker.data.thinking import GIVEN
from safetraind.worker.evaluation import choosers
from safetraind.worker.evaluation.answering import WEIGHTS, Asker, Watcher, longest_answer
from safetraind.worker.evaluation.general_suite import divergence, general_questions
from safetraind.worker.evaluation.harness import task_scores
from safetraind.worker.evaluation.leaks import refuse_leaked, turns_of
from safetraind.worker.evaluation.match import score
from safetraind.worker.evaluation.named_faults import named_faults
from safetraind.worker.evaluation.question_set import Question, read_questions
from safetraind.worker.evaluation.selection import ranked, split
from safetraind.worker.evaluation.verdict import compare
from safetraind.worker.loading import LoadedModel, load

_LOOKED_AT = 2000  # lines of training data, for the length of answers and for repeated ones


@dataclass(frozen=True, slots=True)
class Work:
    """One evaluation. `output`: the trained job's folder. `model`: its base model."""

    job: int
    model: str
    output: Path
    train: str
    spec: EvaluationSpec
    trust_remote_code: bool = False
    thinking: str = GIVEN

    @property
    def folder(self) -> Path:
        """The folder of answers and result."""
        return self.output / EVALUATION


def work_of(job: int, spec: JobSpec, model: str, output: Path) -> Work:
    """Return the evaluation that a job's specification asks for, in the trained job's `output`."""
    asked = spec.evaluation or EvaluationSpec()
    asked = replace(asked, questions=asked.questions or spec.valid)
    thinking = spec.complete_settings.thinking
    job = asked.job or job
    return Work(job, model, output, spec.train, asked, spec.trust_remote_code, thinking)


def evaluate(work: Work, watcher: Watcher) -> Evaluation:
    """Ask, score and compare. Return the result, which is also in `evaluation.json`.

    Raises InvalidInput for questions that cannot be used or that were trained on, NotFound where
    there is no adapter, OSError where the disk refuses, and what `watcher.check` raises.
    """
    watcher.phase("inspecting")
    questions = read_questions(work.spec.questions, work.spec.limit)
    refuse_leaked(questions, work.spec.questions, work.train)
    watcher.phase("loading")
    loaded = load(work.model, trust_remote_code=work.trust_remote_code)
    return _Evaluating(work, watcher, loaded, questions).run()


class _Evaluating:
    def __init__(
        self, work: Work, watcher: Watcher, loaded: LoadedModel, questions: Sequence[Question]
    ) -> None:
        self._work, self._watcher, self._loaded = work, watcher, loaded
        self._checkpoints = _kept_checkpoints(work) if work.spec.checkpoints else {}
        many = len(self._checkpoints) > 1
        self._choosing, self._reported = split(questions) if many else ([], list(questions))
        self._reported, self._of_questions = choosers.independent(self._reported, work.output)
        self._general = general_questions() if work.spec.general else []
        self._trained = trained_answers(work.train)
        self._noisy = mx.default_device() != mx.Device(mx.cpu)  # equal inputs, other last bits
        total = len(self._choosing) * len(self._checkpoints)
        total += len(self._reported) * (3 if self._noisy else 2) + 2 * len(self._general)
        most = answer_limit(work, loaded.tokenizer, questions, self._trained)
        self._asker = Asker(work.folder, most, total, watcher, work.thinking)

    def run(self) -> Evaluation:
        self._watcher.phase("asking")
        chosen = self._ranked_checkpoints()
        base = self._base("base", self._reported)
        again = self._base("base-again", self._reported) if self._noisy else []
        base_general = self._base("base", self._general) if self._general else []
        adapter = self._adapter_folder(chosen[0].checkpoint if chosen else "")
        after = self._after(adapter, self._reported)
        after_general = self._after(adapter, self._general) if self._general else []
        self._watcher.phase("comparing")
        far = -1.0
        if self._general and (adapter / WEIGHTS).is_file():
            far = divergence(self._loaded, adapter, self._watcher)
        spec, place = self._work.spec, self._work.folder
        tasks: tuple[TaskScore, ...] = ()
        if spec.tasks:
            tasks = task_scores(self._work.model, adapter, spec.tasks, spec.limit, place)
        answers = paired(self._reported, base, after)
        general_answers = paired(self._general, base_general, after_general)
        general = verdict_on(general_answers) if general_answers else None
        result = Evaluation(
            job_id=self._work.job,
            questions=self._work.spec.questions,
            adapter=str(adapter),
            verdict=verdict_on(answers, scores(self._reported, again)),
            weak=any(question.match == "similarity" for question in self._reported),
            path=str(self._work.folder / EVALUATION_RESULT),
            general=general,
            divergence=far,
            checkpoints=chosen,
            selection=len(self._choosing),
            tasks=tasks,
            findings=(*named_faults(answers, self._trained, general, far), *self._of_questions),
            answers=tuple(answers),
            general_answers=tuple(general_answers),
        )
        self._work.folder.mkdir(parents=True, exist_ok=True)
        documents.write(self._work.folder / EVALUATION_RESULT, result)
        return result

    def _ranked_checkpoints(self) -> tuple[CheckpointScore, ...]:
        found = {
            name: scores(self._choosing, self._after(folder, self._choosing))
            for name, folder in self._checkpoints.items()
            if self._choosing
        }
        if found:
            choosers.note_comparison(self._work.folder, self._choosing)
        state = training_state.read(self._work.output)
        by_loss = state is not None and "answered" not in state.best
        best = str(state.best.get("checkpoint", "")) if state and by_loss else ""
        steps = {name: _step(folder) for name, folder in self._checkpoints.items()}
        return ranked(found, steps, best)

    def _adapter_folder(self, checkpoint: str) -> Path:
        if self._work.spec.folder:
            return Path(self._work.spec.folder)
        return self._work.output / (checkpoint or ADAPTERS)

    def _base(self, who: str, questions: Sequence[Question]) -> list[str]:
        return self._asker.answers(self._loaded, who, None, questions)

    def _after(self, folder: Path, questions: Sequence[Question]) -> list[str]:
        """Return the answers with an adapter, or of a whole model that was exported to `folder`."""
        if (folder / WEIGHTS).is_file():
            return self._asker.answers(self._loaded, folder.name, folder, questions)
        if not (folder / "config.json").is_file():
            raise NotFound("adapter.missing", path=str(folder))
        exported = load(str(folder), trust_remote_code=self._work.trust_remote_code)
        return self._asker.answers(exported, "exported", None, questions)


def answer_limit(
    work: Work, tokenizer: TokenizerWrapper, questions: Sequence[Question], trained: list[str]
) -> int:
    """Return how many tokens an answer may have: as asked for, or by the expected and the `trained`
    ones.
    """
    expected = [str(one) for question in questions for one in question.expected]
    return work.spec.max_tokens or longest_answer(tokenizer, trained + expected)


def scores(questions: Sequence[Question], answers: Sequence[str]) -> list[float]:
    """Return the score of each answer, 0 to 1; none where there is no answer."""
    if not answers:
        return []
    pairs = zip(questions, answers, strict=True)
    return [score(question.match, question.expected, answer) for question, answer in pairs]


def paired(
    questions: Sequence[Question], base: Sequence[str], after: Sequence[str]
) -> list[EvaluatedAnswer]:
    """Return the questions, each with both answers and their scores."""
    before_after = zip(
        questions, base, after, scores(questions, base), scores(questions, after), strict=True
    )
    return [
        EvaluatedAnswer(q.text, tuple(map(str, q.expected)), q.match, b, a, base_score, score_after)
        for q, b, a, base_score, score_after in before_after
    ]


def verdict_on(answers: Sequence[EvaluatedAnswer], again: Sequence[float] = ()) -> Verdict:
    """Return the verdict; `again`: the base's scores in a second run."""
    first, second = [a.base_score for a in answers], [a.adapter_score for a in answers]
    return compare(first, second, again)


def trained_answers(path: str) -> list[str]:
    """Return the answers in the first lines of training data."""
    with Corpus(path) as lines:
        seen = itertools.islice(lines, _LOOKED_AT)
        return [text for line in seen for text in turns_of(line.content, "assistant")]


def _kept_checkpoints(work: Work) -> Mapping[str, Path]:
    """Return the trained job's checkpoints that are whole adapters, in the order of training."""
    state = training_state.read(work.output)
    names = state.checkpoints if state else ()
    folders = {name: work.output / name for name in names}
    return {name: folder for name, folder in folders.items() if (folder / WEIGHTS).is_file()}


def _step(checkpoint: Path) -> int:
    manifest = read_manifest(checkpoint)
    return int(manifest.get("step", 0)) if manifest else 0

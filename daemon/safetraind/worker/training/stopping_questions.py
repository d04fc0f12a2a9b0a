"""The held-out questions that end a training early, once the model answers all of them right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import mlx.core as mx

from safetrain_shared.errors import SafetrainError
from safetraind.worker.evaluation.answering import BATCH, answered
from safetraind.worker.evaluation.choosers import note_ending
from safetraind.worker.evaluation.evaluate import (
    answer_limit,
    scores,
    trained_answers,
    work_of,
)
from safetraind.worker.evaluation.question_set import Question, read_questions
from safetraind.worker.evaluation.selection import split
from safetraind.worker.inference.context_limit import answer_bytes, shape_of
from safetraind.worker.inference.generation import encode_prompt
from safetraind.worker.loading import LoadedModel, evaluating, item_bytes
from safetraind.worker.training.event_sink import EventSink
from safetraind.worker.training.task import Task

FEWEST = 8  # fewer would all be right by luck too often


class StoppingQuestions:
    """Half of a job's questions, chosen by their hash. The verdict is on the other half.

    There are none without early stopping, without questions, and where these are few or unusable,
    which the evaluation after the training reports. As many are asked at once as fit into the
    memory that a step takes.
    """

    def __init__(self, job: Task, sink: EventSink, loaded: LoadedModel) -> None:
        self._sink, self._loaded = sink, loaded
        self._questions: Sequence[Question] = ()
        settings = job.plan.settings
        if job.spec.evaluation is None or not settings.early_stopping:
            return
        work = work_of(job.job, job.spec, job.plan.model_path, job.output)
        self._folder = work.folder
        try:
            found = read_questions(work.spec.questions, work.spec.limit)
            choosing, _ = split(found)
            self._prompts = [
                encode_prompt(loaded.tokenizer, one.messages, settings.thinking) for one in choosing
            ]
        except (SafetrainError, OSError):
            return
        if len(choosing) < FEWEST:
            return
        self._questions = choosing
        self._most = answer_limit(work, loaded.tokenizer, found, trained_answers(work.train))
        longest = max(map(len, self._prompts)) + self._most
        shape = shape_of(loaded.config, item_bytes(loaded.model))
        room = job.plan.memory_limit - mx.get_active_memory()
        fits = room // answer_bytes(shape, longest) if job.plan.memory_limit else BATCH
        self._rows = max(1, min(BATCH, fits))

    def all_right(self) -> int:
        """Return the number of questions if the model answers all of them right, else 0. Raises
        OSError where the disk refuses to note which they were.

        They are asked batch by batch until one is answered wrong. Batches begin small and double:
        a model that has not learned yet errs in the first ones.
        """
        if not self._questions:
            return 0
        self._sink.phase("asking")
        model, tokenizer = self._loaded.model, self._loaded.tokenizer
        with evaluating(model):
            for part in _doubling(len(self._questions), self._rows):
                texts = answered(model, tokenizer, self._prompts[part], self._most)
                if min(scores(self._questions[part], texts)) < 1:
                    return 0
        note_ending(self._folder, self._questions)
        return len(self._questions)


def _doubling(count: int, most: int) -> Iterator[slice]:
    """Yield the parts of `count` questions, of 1, 2, 4 and so on, at most `most` each."""
    at, rows = 0, 1
    while at < count:
        yield slice(at, at + rows)
        at, rows = at + rows, min(2 * rows, most)

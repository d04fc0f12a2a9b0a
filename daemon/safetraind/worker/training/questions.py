"""Questions to a model in training, answered between two optimizer steps."""

from __future__ import annotations

import time

import mlx.core as mx

from safetrain_shared.questions import CONTEXT_TOKENS, AnswerSource
from safetraind.worker.inference.context_limit import longest, shape_of
from safetraind.worker.inference.question_socket import QuestionServer, answer
from safetraind.worker.loading import LoadedModel, item_bytes
from safetraind.worker.training.event_sink import EventSink
from safetraind.worker.training.task import Task

_UNLIMITED = 1 << 60  # bytes


class Questions:
    """Questions to one training. They take at most half of its time."""

    def __init__(self, task: Task, sink: EventSink, loaded: LoadedModel) -> None:
        """Listen at the run's socket."""
        self._server = QuestionServer(task.run.socket)
        self._sink = sink
        self._loaded = loaded
        self._model = task.spec.model
        self._shape = shape_of(loaded.config, item_bytes(loaded.model))
        self._memory_limit = task.plan.memory_limit
        self._next = 0.0  # when the training has had as long as the answer before it

    def answer(self, step: int) -> None:
        """Answer one waiting client, with the weights after `step` steps.

        None is answered while the training has had less time than the last answer took.
        """
        if time.monotonic() < self._next or (asker := self._server.take()) is None:
            return
        self._sink.phase("answering")
        source = AnswerSource(self._model, step=step, training=True)
        began = time.monotonic()
        try:
            answer(asker, self._loaded, source, context=self._context(), stop=self._stop)
        finally:
            self._server.done_with(asker)
            ended = time.monotonic()
            self._next = ended + (ended - began)

    def __enter__(self) -> Questions:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening. Clients that still wait get an error."""
        self._server.close()

    def _context(self) -> int:
        """Return the tokens for question and answer in the plan's free memory: between steps a
        step's memory is free.
        """
        limit = self._memory_limit or _UNLIMITED
        return longest(self._shape, limit - mx.get_active_memory(), CONTEXT_TOKENS)

    def _stop(self) -> bool:
        return bool(self._sink.intent())

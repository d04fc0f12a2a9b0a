"""The inspection of a job's files: the worker's request, and the facts in its result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safetrain_shared.evaluations import EvaluationSpec
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Data
from safetraind.worker_messages.inspect_messages import (
    InspectLine,
    InspectRequest,
    InspectResult,
    ModelReading,
    TokenizerFacts,
)
from safetraind.worker_messages.worker_result import WorkerResult

_MOST_PROBLEMS = 100


class Problems:
    """The problems of an inspection that are kept.

    Those are the blocking ones, the first of each kind in each file, and enough others to show in a
    report. The rest is only counted.
    """

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self._kinds: set[tuple[Any, Any]] = set()

    def note(self, line: InspectLine) -> None:
        """Keep the problem in a line of the worker, if it holds one."""
        problem = line.problem
        if problem is None:
            return
        kind = problem.code, problem.args.get("path")
        if problem.blocks or kind not in self._kinds or len(self.kept) < _MOST_PROBLEMS:
            self.kept.append(problem)
        self._kinds.add(kind)


def inspect_request(spec: JobSpec, model_path: str, vocabulary: int) -> InspectRequest:
    """Return the request to the inspect worker. `vocabulary`: rows of the model's embedding, 0
    where unknown.
    """
    targets = spec.settings.get("lora_targets")
    evaluation = spec.evaluation or EvaluationSpec()
    return InspectRequest(
        train=spec.train,
        valid=spec.valid,
        model=model_path,
        vocabulary=vocabulary,
        targets=tuple(targets) if isinstance(targets, tuple | list) else (),
        mask_prompt=bool(spec.settings.get("mask_prompt", True)),
        thinking=str(spec.settings.get("thinking", "given")),
        trust_remote_code=spec.trust_remote_code,
        questions=evaluation.questions,
        question_limit=evaluation.limit,
    )


def inspection_end(ended: WorkerResult[InspectResult]) -> Finding:
    """Return the finding for an inspection that ended without a result."""
    if ended.limit:
        return Finding(f"data.inspection_{ended.limit}", Status.FAILED, True)
    lines = [line for line in ended.log.strip().splitlines() if line[:1].strip()]
    reason = lines[-1][:200] if lines and not ended.exit.signal else ended.how
    return Finding("data.inspection_died", Status.FAILED, True, {"reason": reason})


def data_from(result: InspectResult, problems: Sequence[Finding]) -> Data:
    """Return the worker's result as the data facts that checks and planner read."""
    tokenizer = result.tokenizer or TokenizerFacts()
    model = result.model or ModelReading()
    return Data(
        result.train,
        result.valid,
        problems=tuple(problems),
        tokenizer_reason="" if tokenizer.loaded else tokenizer.reason or "?",
        chat_template=tokenizer.chat_template,
        templates=tokenizer.templates,
        lost_keys=model.lost,
        dropped_keys=model.dropped,
        missing_targets=model.missing,
        known_targets=model.known,
    )

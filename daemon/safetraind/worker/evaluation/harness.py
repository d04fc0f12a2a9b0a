"""`--tasks`: benchmarks of lm-evaluation-harness, through mlx-lm's model class for it.

Needs the extra `safetrain[tasks]` and, for most tasks, the network once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetrain_shared.errors import InvalidInput
from safetrain_shared.evaluations import TaskScore
from safetraind.storage.durable import read_object, write_json
from safetraind.storage.manifest import sha256
from safetraind.worker.evaluation.answering import WEIGHTS
from safetraind.worker.loading import attach_adapter

_PREFERRED = ("acc_norm", "acc", "exact_match", "f1", "word_perplexity")
Results = Mapping[str, Mapping[str, float]]


def task_scores(
    model: str, after: Path, tasks: Sequence[str], limit: int, folder: Path
) -> tuple[TaskScore, ...]:
    """Return each task's main metric for the base `model` and for the adapter (or model) in
    `after`.

    `limit`: examples of a task at most; 0: all. Results are kept in `folder` and not measured
    again. Raises InvalidInput where a task is unknown or the harness is not installed.
    """
    measured = []
    for who, place in (("base", None), ("adapter", after)):
        key = sha256(place / WEIGHTS)[:16] if place and (place / WEIGHTS).is_file() else ""
        kept = folder / f"tasks-{who}{key and '-'}{key}-{limit}.json"
        known = dict(read_object(kept))
        missing = [task for task in tasks if task not in known]
        if missing:
            known |= _measured(model, place, missing, limit)
            folder.mkdir(parents=True, exist_ok=True)
            write_json(kept, known)
        measured.append(known)
    base, adapter = measured
    return tuple(score for task in tasks if (score := _score(task, base[task], adapter[task])))


def _measured(model: str, place: Path | None, tasks: Sequence[str], limit: int) -> Results:
    try:
        import lm_eval
        from mlx_lm.evaluate import MLXLM
    except ImportError as error:
        raise InvalidInput("evaluate.no_harness") from error
    exported = place is not None and not (place / WEIGHTS).is_file()
    lm = MLXLM(str(place) if exported else model)
    if place is not None and not exported:
        attach_adapter(lm._model, place)
    return {task: _numbers(lm_eval, lm, task, limit) for task in tasks}


def _numbers(harness: Any, lm: Any, task: str, limit: int) -> Mapping[str, float]:
    """Return the task's metrics. A task that is a YAML file has its name in there. Raises
    InvalidInput.
    """
    try:
        results = harness.simple_evaluate(
            model=lm, tasks=[task], limit=limit or None, apply_chat_template=lm.use_chat_template
        )["results"]
    except (ValueError, KeyError, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InvalidInput("evaluate.task_refused", tasks=task, reason=reason) from error
    found: Mapping[str, Any] = results.get(task) or next(iter(results.values()))
    return {name: value for name, value in found.items() if _is_number(value)}


def _score(task: str, base: Mapping[str, Any], adapter: Mapping[str, Any]) -> TaskScore | None:
    """Return the task's main metric; the harness names it `metric,filter`."""
    names = {name.partition(",")[0]: name for name in base if "_stderr" not in name}
    metric = next((name for name in _PREFERRED if name in names), next(iter(names), ""))
    if not metric or names[metric] not in adapter:
        return None
    key = names[metric]
    error = f"{metric}_stderr,{key.partition(',')[2]}"
    errors = float(base.get(error, 0.0)), float(adapter.get(error, 0.0))
    return TaskScore(task, metric, float(base[key]), float(adapter[key]), *errors)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

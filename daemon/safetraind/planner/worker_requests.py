"""What preflight needs of whoever starts workers, and the requests and results it exchanges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from safetrain_shared.codec import from_plain, to_plain
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.settings import TrainingSettings
from safetraind.planner.budget import Budget
from safetraind.planner.facts import Data, Device, Loaded, data_file_from
from safetraind.planner.memory_estimate import Step
from safetraind.planner.next_probe import Setup
from safetraind.planner.option import Measure

# A step's shape, by the names under which it travels and is kept.
SHAPE = ("rows", "width", "learned", "valid_width", "valid_learned")

OnProgress = Callable[[Mapping[str, Any]], None]
_MOST_PROBLEMS = 100


class Ended(Protocol):
    """How a worker ended, by its keeper, and what it wrote; None where it wrote nothing whole."""

    @property
    def exit(self) -> Mapping[str, Any]:
        """The content of exit.json."""

    @property
    def result(self) -> dict[str, Any] | None:
        """The content of probe.json."""

    @property
    def log(self) -> str:
        """The end of what it printed."""

    @property
    def limit(self) -> str:
        """ "time" or "memory" where it was killed at its limit."""


class Workers(Protocol):
    """Starts passing workers: `safetraind.processes.ephemeral.Launcher`."""

    @property
    def has_lease(self) -> bool:
        """Whether a worker that needs the GPU can be run."""

    async def run_worker(
        self,
        role: str,
        request: Mapping[str, Any],
        *,
        lease: bool,
        on_progress: OnProgress | None = None,
    ) -> Ended:
        """Runs a worker to its end; its lines go to `on_progress` as they come."""


class Problems:
    """Of all that an inspection finds wrong: what blocks, the first of each kind in each file, and
    so many more that a report shows what they are like. The rest is only counted.
    """

    def __init__(self) -> None:
        self.kept: list[Mapping[str, Any]] = []
        self._kinds: set[tuple[Any, Any]] = set()

    def note(self, line: Mapping[str, Any]) -> None:
        """Takes the problem from a line of the worker, where it is one of a problem."""
        problem = line.get("problem")
        if problem is None:
            return
        kind = problem["code"], problem["args"].get("path")
        if problem["blocks"] or kind not in self._kinds or len(self.kept) < _MOST_PROBLEMS:
            self.kept.append(problem)
        self._kinds.add(kind)


def inspect_request(spec: JobSpec, model_path: str, vocabulary: int) -> dict[str, Any]:
    """What the inspect worker is asked in preflight. `vocabulary`: rows of the model's embedding,
    0 where they are not known.
    """
    return {
        "train": spec.train,
        "valid": spec.valid,
        "model": model_path,
        "vocabulary": vocabulary,
        "targets": list(_texts(spec.settings.get("lora_targets"))),
        "mask_prompt": bool(spec.settings.get("mask_prompt", True)),
        "thinking": str(spec.settings.get("thinking", "given")),
        "trust_remote_code": spec.trust_remote_code,
    }


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, tuple | list) else ()


def inspection_end(ended: Ended) -> Finding:
    """Why an inspection wrote no result."""
    if ended.limit:
        return Finding(f"data.inspection_{ended.limit}", Status.FAILED, True)
    lines = [line for line in ended.log.strip().splitlines() if line[:1].strip()]
    exit_told = ", ".join(f"{name} {value}" for name, value in ended.exit.items() if value)
    raised = lines and not ended.exit.get("signal")
    reason = lines[-1][:200] if raised else exit_told or "-"
    return Finding("data.inspection_died", Status.FAILED, True, {"reason": reason})


def data_from(result: Mapping[str, Any], problems: Sequence[Finding]) -> Data:
    """The inspect worker's answer."""
    tokenizer = result.get("tokenizer") or {}
    reason = "" if tokenizer.get("loaded", True) else "; ".join(tokenizer.get("reason") or ["?"])
    train, valid = (data_file_from(result.get(name)) for name in ("train", "valid"))
    model = result.get("model") or {}
    return Data(
        train,
        valid,
        problems=tuple(problems),
        tokenizer_reason=reason,
        chat_template=tokenizer.get("chat_template", True),
        templates=tuple(tokenizer.get("templates", ())),
        lost_keys=tuple(model.get("lost", ())),
        dropped_keys=tuple(model.get("dropped", ())),
        missing_targets=tuple(model.get("missing", ())),
        known_targets=tuple(model.get("known", ())),
    )


def probe_request(
    spec: JobSpec, model_path: str, setups: Sequence[Setup], budget: Budget, seconds: float
) -> dict[str, Any]:
    """What the probe worker is asked: real steps of `setups` in turn, within `seconds`."""
    return {
        "model": model_path,
        "trust_remote_code": spec.trust_remote_code,
        "setups": [{"settings": to_plain(s.settings), **shape_of(s.step)} for s in setups],
        "memory_limit": budget.limit,
        "cache_limit": budget.cache,
        "seconds": seconds,
    }


def pilot_request(spec: JobSpec, plan: Plan, rates: Sequence[float]) -> dict[str, Any]:
    """What the pilot worker is asked: the plan's steps at each of `rates`."""
    return {
        "model": plan.model_path,
        "trust_remote_code": spec.trust_remote_code,
        "train": spec.train,
        "valid": spec.valid,
        "settings": to_plain(plan.settings),
        "length_bucket": plan.length_bucket,
        "memory_limit": plan.memory_limit,
        "cache_limit": plan.cache_limit,
        "rates": list(rates),
        "seconds": 60 * plan.settings.pilot_minutes,
    }


def device_from(value: Mapping[str, Any]) -> Device:
    """The device as the probe saw it."""
    return Device(**value)


def loaded_from(found: Mapping[str, Any]) -> Loaded | None:
    """How loading went, from all that the probe found; None where it did not get there."""
    if "failed" in found:
        return Loaded(0.0, cause=from_plain(found["failed"], Finding))
    return Loaded(**found["loaded"]) if "loaded" in found else None


def measure_from(value: Mapping[str, Any], *, died: bool = False) -> Measure:
    """One measure or death."""
    settings: TrainingSettings = from_plain(value["settings"], TrainingSettings)
    shape = {name: value[name] for name in SHAPE}
    speed, outside = value.get("tokens_per_second", 0.0), value.get("outside", 0)
    updating, limit = value.get("update_seconds", 0.0), value.get("limit", 0)
    return Measure(settings, Step(**shape), value["peak"], speed, outside, died, updating, limit)


def shape_of(step: Step) -> dict[str, int]:
    """A step's shape as it travels and is kept."""
    return {name: getattr(step, name) for name in SHAPE}

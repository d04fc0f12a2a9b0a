"""Which learning rates a pilot tries, and which one its trials recommend; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safetrain_shared.errors import ArgValue
from safetrain_shared.findings import Finding, Status

# Multiples of the tier's rate, in the order in which they are tried.
_MULTIPLES = (1.0, 4.0, 2.0, 8.0, 0.5)
# Of rates that reach nearly the same loss the lowest: over few steps a high one looks better than
# over many (Wu et al. 2018, short-horizon bias).
_NEARLY = 0.05


@dataclass(frozen=True, slots=True)
class Trial:
    """`loss` of held-out samples after the steps at `rate`; None: it diverged."""

    rate: float
    loss: float | None


@dataclass(frozen=True, slots=True)
class PilotResult:
    """`base`: the loss before the first step; `steps`: of each trial."""

    base: float
    steps: int
    trials: tuple[Trial, ...]


def rates(start: float) -> list[float]:
    """The rates to try, the most telling first, from the tier's rate."""
    return [float(f"{start * multiple:.2g}") for multiple in _MULTIPLES]


def result_from(value: Mapping[str, Any]) -> PilotResult | None:
    """The pilot worker's answer; None where it tried nothing."""
    trials = tuple(Trial(trial["rate"], trial["loss"]) for trial in value.get("trials", ()))
    return PilotResult(value["base"], value["steps"], trials) if trials else None


def recommended_rate(result: PilotResult) -> float:
    """The lowest rate that learned nearly as much as the best; 0 where none learned anything."""
    learned = [(t.rate, result.base - t.loss) for t in result.trials if t.loss is not None]
    most = max((gain for _, gain in learned), default=0.0)
    if len(learned) < 2 or most <= 0:
        return 0.0
    return min(rate for rate, gain in learned if gain >= (1 - _NEARLY) * most)


def reason(result: PilotResult | None) -> Finding:
    """What the pilot found, as a reason of the plan."""
    rate = recommended_rate(result) if result else 0.0
    if result is None or not rate:
        return Finding("plan.pilot_failed", Status.WARNING)
    trials = sorted(result.trials, key=lambda trial: trial.rate)
    tried = ", ".join(f"{t.rate:g}: {t.loss:.3f}" for t in trials if t.loss is not None)
    args: dict[str, ArgValue] = {
        "rate": rate,
        "steps": result.steps,
        "base": round(result.base, 3),
        "tried": tried,
    }
    refused = [t.rate for t in trials if t.loss is None or t.loss > result.base]
    if refused:
        return Finding("plan.pilot_refused", args={**args, "hot": min(refused)})
    return Finding("plan.pilot", args=args)

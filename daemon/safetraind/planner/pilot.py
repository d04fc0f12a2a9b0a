"""The learning rates that a pilot tries, and the one that its trials recommend; pure."""

from __future__ import annotations

from safetrain_shared.errors import ArgValue
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.learning_curve import NOTHING_LEFT
from safetraind.worker_messages.pilot_messages import PilotRequest, PilotResult

# Multiples of the tier's rate, in the order in which they are tried.
_MULTIPLES = (1.0, 4.0, 2.0, 8.0, 0.5)
# Losses that differ by less, relatively, are taken as equal. Of their rates it is the middle one:
# the lowest may be too low for a whole run, which short runs do not show (Wu et al. 2018,
# short-horizon bias), and the highest is the nearest to divergence.
_NEARLY = 0.05


def rates(start: float) -> list[float]:
    """Return the rates to try, from the tier's rate, the most informative first."""
    return [float(f"{start * multiple:.2g}") for multiple in _MULTIPLES]


def pilot_request(spec: JobSpec, plan: Plan) -> PilotRequest:
    """Return the request to the pilot worker: the plan's steps at several rates."""
    return PilotRequest(
        model=plan.model_path,
        train=spec.train,
        valid=spec.valid,
        settings=plan.settings,
        rates=tuple(rates(plan.settings.learning_rate)),
        seconds=60 * plan.settings.pilot_minutes,
        length_bucket=plan.length_bucket,
        trust_remote_code=spec.trust_remote_code,
        memory_limit=plan.memory_limit,
        cache_limit=plan.cache_limit,
    )


def recommended_rate(result: PilotResult) -> float:
    """Return the middle one of the rates with nearly the lowest loss, of two the lower; 0 where
    none learned anything.

    Losses are compared, and not what was gained: most of the gain is the form of the answers, which
    every rate learns, and what is in them makes little of it.
    """
    losses = {t.rate: max(t.loss, NOTHING_LEFT) for t in result.trials if t.loss is not None}
    least = min(losses.values(), default=result.base)
    if len(losses) < 2 or least >= result.base:
        return 0.0
    equal = sorted(rate for rate, loss in losses.items() if loss <= (1 + _NEARLY) * least)
    return equal[(len(equal) - 1) // 2]


def reason(result: PilotResult | None) -> Finding:
    """Return the pilot's result, as a reason of the plan."""
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

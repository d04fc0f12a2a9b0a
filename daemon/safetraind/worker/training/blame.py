"""Says why a loss was not a finite number: the sample, the learning rate, or the numbers' range."""

from __future__ import annotations

import math
from collections.abc import Sequence

from safetrain_shared.findings import Finding, Status
from safetraind.worker.loading import adapter_off
from safetraind.worker.training.batches import Batch, batch
from safetraind.worker.training.dataset import Samples
from safetraind.worker.training.step import Stepper


def explain(
    stepper: Stepper, window: Sequence[Batch], samples: Samples, path: str, step: int, rate: float
) -> Finding:
    """The finding for a window that gave a loss or gradient that is not finite.

    Each sample is computed alone. One that fails with the base model too is itself the cause;
    otherwise the weights have gone astray, for which the learning rate is the usual reason.
    """
    numbers = [number for part in window for number in part.samples]
    failing = [number for number in numbers if not _is_finite(stepper, samples, number)]
    with adapter_off(stepper.model):
        at_fault = [number for number in failing if not _is_finite(stepper, samples, number)]
    named = (at_fault or failing or numbers)[0]
    args: dict[str, str | int | float | bool | None] = {
        "step": step,
        "path": path,
        "line": samples.line(named),
        "rate": rate,
    }
    if at_fault:
        return Finding("train.non_finite_sample", Status.FAILED, True, args)
    return Finding("train.non_finite_weights", Status.FAILED, True, args)


def _is_finite(stepper: Stepper, samples: Samples, number: int) -> bool:
    width = int(samples.lengths[number]) - 1
    return math.isfinite(stepper.evaluate([batch(samples, [(number,)], width)])[0])

"""Finds the cause of a loss or gradient that is not finite: a sample, the learning rate, or the
dtype's range.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from safetrain_shared.findings import Finding, Status
from safetraind.worker.loading import adapter_off
from safetraind.worker.training.batches import Batch, batch
from safetraind.worker.training.dataset import Samples
from safetraind.worker.training.step import Stepper

NON_FINITE_WEIGHTS = "train.non_finite_weights"


def diagnose_step(
    stepper: Stepper, window: Sequence[Batch], samples: Samples, path: str, number: int, rate: float
) -> Finding:
    """Return the finding for optimizer step `number`, whose loss or gradient is not finite.

    Each sample is computed alone. One whose loss fails with the base model too is itself the cause.
    Otherwise the trained weights are, usually because of the learning rate. Where none fails alone,
    the one with the largest gradient is named.
    """
    numbers = [n for part in window for n in part.samples]
    sizes = {n: _gradient_norm(stepper, samples, n, number) for n in numbers}
    failing = [n for n in numbers if math.isinf(sizes[n])]
    at_fault = _at_fault(stepper, samples, failing)
    worst = max(numbers, key=lambda n: sizes[n])
    named = samples.line((at_fault or failing or [worst])[0])
    return _finding(
        "train.non_finite_sample" if at_fault else NON_FINITE_WEIGHTS, path, named, number, rate
    )


def diagnose_evaluation(
    stepper: Stepper,
    batches: Iterable[Batch],
    samples: Samples,
    path: str,
    number: int,
    rate: float,
) -> Finding:
    """Return the finding for a validation loss that is not finite after `number` steps. See
    `diagnose_step`.
    """
    parts = [part for part in batches if not math.isfinite(stepper.evaluate([part])[0])]
    numbers = [n for part in parts for n in part.samples]
    failing = [n for n in numbers if not _is_finite(stepper, samples, n)]
    at_fault = _at_fault(stepper, samples, failing)
    code = "train.non_finite_validation" if at_fault else "train.non_finite_evaluation"
    named = samples.line((at_fault or failing or numbers)[0])
    return _finding(code, path, named, number, rate)


def _at_fault(stepper: Stepper, samples: Samples, numbers: Sequence[int]) -> list[int]:
    """Return the samples of `numbers` that fail with the base model too."""
    with adapter_off(stepper.model):
        return [number for number in numbers if not _is_finite(stepper, samples, number)]


def _is_finite(stepper: Stepper, samples: Samples, number: int) -> bool:
    return math.isfinite(stepper.evaluate([_alone(samples, number)])[0])


def _gradient_norm(stepper: Stepper, samples: Samples, number: int, step: int) -> float:
    """Return the norm of one sample's gradient; infinite where it or the loss is not finite."""
    loss, norm = stepper.loss_and_norm([_alone(samples, number)], step)
    return norm if math.isfinite(loss) and math.isfinite(norm) else math.inf


def _alone(samples: Samples, number: int) -> Batch:
    return batch(samples, [(number,)], int(samples.lengths[number]) - 1)


def _finding(code: str, path: str, line: int, step: int, rate: float) -> Finding:
    return Finding(
        code, Status.FAILED, True, {"step": step, "path": path, "line": line, "rate": rate}
    )

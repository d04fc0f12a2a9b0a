"""The learning rate at each optimizer step: warm-up, then constant, linear or cosine."""

from __future__ import annotations

import math

from safetrain_shared.settings import TrainingSettings


def learning_rate(settings: TrainingSettings, step: int, total_steps: int) -> float:
    """Return the rate of optimizer step `step`, counted from 0, of a run of `total_steps`.

    Warm-up of w steps rises linearly: step i has (i + 1) / w of the peak. Linear and cosine (half a
    period; Loshchilov and Hutter 2017) fall from the peak so that they would reach zero at
    `total_steps`: the last step still learns a little, and nothing is left over.
    """
    peak, rising = settings.learning_rate, settings.warmup_in(total_steps)
    if step < rising:
        return peak * (step + 1) / rising
    if settings.schedule == "constant":
        return peak
    passed = (step - rising) / max(1, total_steps - rising)
    if settings.schedule == "linear":
        return peak * (1 - passed)
    return peak * (1 + math.cos(math.pi * passed)) / 2

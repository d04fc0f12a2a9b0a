"""The position of a run between two optimizer steps: all numbers that decide what comes next."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safetrain_shared.settings import TrainingSettings
from safetraind.worker.training.step import Stepped


@dataclass(slots=True)
class RunPosition:
    """The position of a run; with the adapter and the optimizer's state it determines the rest.

    `step` counts optimizer steps done in the run, `step_in_epoch` in `epoch` (from 0). Since the
    last logged step: `loss_sum` over `learned` predictions of `unlogged` steps; `logged_…`: of the
    window logged before it. `base_loss`: the validation loss before step 1; NaN: not measured.
    `stale` counts evaluations since the best one; `best_step` is 0 before the first. `answered`:
    the held-out questions that end the run, once all are answered right; else 0. `flat` counts
    epochs that brought little. `published`: the SHA-256 of the weights in `adapters/`. `seconds`
    were spent in steps, over all attempts. `first_length`, `first_window`: the sequences' length
    and the rows of a window when the run began. The windows stay when a later plan has others, or
    samples would be skipped or come twice.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    tokens: int = 0
    samples: int = 0
    loss_sum: float = 0.0
    learned: int = 0
    unlogged: int = 0
    logged_sum: float = 0.0
    logged_learned: int = 0
    logged_steps: int = 0
    first_loss: float = math.nan
    last_loss: float = math.nan
    base_loss: float = math.nan
    best_loss: float = math.inf
    best_step: int = 0
    best_checkpoint: str = ""
    published: str = ""
    stale: int = 0
    answered: int = 0
    flat: int = 0
    seconds: float = 0.0
    first_length: int = 0
    first_window: int = 0

    def begin(self, settings: TrainingSettings) -> None:
        """Take the windows of the settings, unless the run began with others."""
        self.first_length = self.first_length or settings.max_seq_length
        self.first_window = self.first_window or settings.effective_batch

    def advance(self, epoch: int, place: int, done: Stepped) -> None:
        """Count optimizer step `place` of `epoch`, both counted from 0."""
        self.step, self.epoch, self.step_in_epoch = self.step + 1, epoch, place + 1
        self.loss_sum += done.loss * done.learned
        self.learned += done.learned
        self.unlogged += 1
        self.tokens += done.tokens
        self.samples += done.samples
        self.seconds += done.seconds

    def take_loss(self) -> float:
        """Return the mean loss since the last call, and start a new mean.

        A window of fewer than half the steps of the one before, as at the end of a run, is averaged
        together with it: the mean of a step or two would look like a leap.
        """
        total, learned = self.loss_sum, self.learned
        if 2 * self.unlogged < self.logged_steps:
            total, learned = total + self.logged_sum, learned + self.logged_learned
        self.last_loss = total / max(1, learned)
        if math.isnan(self.first_loss):
            self.first_loss = self.last_loss
        self.logged_sum, self.logged_learned = self.loss_sum, self.learned
        self.logged_steps = self.unlogged
        self.loss_sum, self.learned, self.unlogged = 0.0, 0, 0
        return self.last_loss

    def judge(self, validation_loss: float, checkpoint: str, answered: int = 0) -> bool:
        """Count an evaluation. Return whether it is the best so far: its loss is the lowest, or all
        of the questions that end the run were answered right, `answered` of them.
        """
        self.answered = answered
        if not (answered or validation_loss < self.best_loss):
            self.stale += 1
            return False
        self.best_loss, self.best_step, self.best_checkpoint = (
            validation_loss,
            self.step,
            checkpoint,
        )
        self.stale = 0
        return True


def to_json(progress: RunPosition) -> dict[str, Any]:
    """Return the position as a JSON object. Numbers that are not finite become None."""
    plain = dataclasses.asdict(progress)
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in plain.items()
    }


def from_json(data: Mapping[str, Any]) -> RunPosition:
    """Return the position in a JSON object. Fields of a newer version are ignored."""
    names = {f.name for f in dataclasses.fields(RunPosition)}
    return RunPosition(**{k: v for k, v in data.items() if k in names and v is not None})

"""The training worker, held before a step: `python -m tests.trainer.held_worker RUN STEP`.

Once STEP optimizer steps are done it leaves the file `held` in its run folder and waits for the
file `go`. What a test does until then happens between two known steps, however busy the machine
is.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from safetraind.worker.training import prepare, train
from safetraind.worker.training.batches import Batch
from safetraind.worker.training.step import Stepped, Stepper


def _held_before(step: int, run: Path) -> type[Stepper]:
    class Held(Stepper):
        def step(self, window: Sequence[Batch], number: int, learning_rate: float) -> Stepped:
            if number == step:
                (run / "held").touch()
                while not (run / "go").exists():
                    time.sleep(0.01)
            return super().step(window, number, learning_rate)

    return Held


if __name__ == "__main__":
    with mock.patch.object(prepare, "Stepper", _held_before(int(sys.argv[2]), Path(sys.argv[1]))):
        sys.exit(train.main(sys.argv[1:2]))

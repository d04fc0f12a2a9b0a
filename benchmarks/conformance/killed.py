"""The training worker, which dies by SIGKILL within a window of its choosing.

`python -m benchmarks.conformance.killed RUN STEP`: half of the micro-batches of the window after
optimizer step STEP are accumulated then. At 0 it trains to its end.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any
from unittest import mock

from safetraind.worker.training import prepare, train
from safetraind.worker.training.batches import Batch
from safetraind.worker.training.step import Stepper


def _killed_after(step: int) -> type[Stepper]:
    class Killed(Stepper):
        def gradients(self, window: Sequence[Batch], number: int) -> Any:
            if number == step > 0:
                super().gradients(window[: len(window) // 2], number)
                os.kill(os.getpid(), signal.SIGKILL)
            return super().gradients(window, number)

    return Killed


if __name__ == "__main__":
    with mock.patch.object(prepare, "Stepper", _killed_after(int(sys.argv[2]))):
        sys.exit(train.main(sys.argv[1:2]))

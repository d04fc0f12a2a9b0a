"""A real worker whose steps take a tenth of a second more, and which is given up sooner when it
hangs: `python tests/daemon/unhurried_worker.py ROLE RUN`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from safetraind.worker.__main__ import main
from safetraind.worker.training import heartbeat
from safetraind.worker.training.batches import Batch
from safetraind.worker.training.step import Stepped, Stepper

PATIENCE_SECONDS = 8.0


def _slower(stepper: Stepper, window: Sequence[Batch], number: int, rate: float) -> Stepped:
    time.sleep(0.1)
    return _step(stepper, window, number, rate)


_step = Stepper.step

if __name__ == "__main__":
    with (
        mock.patch.object(heartbeat, "LEAST_SECONDS", PATIENCE_SECONDS),
        mock.patch.object(heartbeat, "STEP_MULTIPLE", 1.0),
        mock.patch.object(heartbeat, "FIRST_SECONDS", 8 * PATIENCE_SECONDS),
        mock.patch.object(Stepper, "step", _slower),
    ):
        sys.exit(main())

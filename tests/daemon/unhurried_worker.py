"""A real worker whose micro-batches take a seventh of a second more, and which is given up sooner
when it hangs: `python tests/daemon/unhurried_worker.py ROLE RUN`.

Of a job named `unequal` they take a second more in a rank that was lent to another machine. Where
JACCL is asked for, one of play takes its place, but for a job named `without JACCL`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from safetraind.worker.__main__ import main
from safetraind.worker.training import heartbeat
from safetraind.worker.training.batches import Batch
from safetraind.worker.training.step import Stepper
from tests.daemon import jaccl_of_play

PATIENCE_SECONDS = 6.0


def _slower(stepper: Stepper, window: Sequence[Batch], number: int) -> Any:
    time.sleep(SECONDS * len(window))
    return _gradients(stepper, window, number)


def _name() -> str:
    """The job's name; empty for a worker of another kind."""
    if sys.argv[1] not in ("rank", "train"):
        return ""
    spec = json.loads((Path(sys.argv[2]) / "spec.json").read_text())["spec"]
    return str(spec["name"])


_gradients = Stepper.gradients
SECONDS = 0.15  # so that what is computed and sent on a busy machine hardly counts

if __name__ == "__main__":
    SECONDS = 1.0 if sys.argv[1] == "rank" and _name() == "unequal" else SECONDS
    plays = jaccl_of_play.is_asked_for() and _name() != "without JACCL"
    with (
        mock.patch.object(heartbeat, "LEAST_SECONDS", PATIENCE_SECONDS),
        mock.patch.object(heartbeat, "STEP_MULTIPLE", 1.0),
        mock.patch.object(heartbeat, "FIRST_SECONDS", 8 * PATIENCE_SECONDS),
        mock.patch.object(Stepper, "gradients", _slower),
        jaccl_of_play.in_place() if plays else nullcontext(),
    ):
        sys.exit(main())

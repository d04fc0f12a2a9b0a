"""Where few files may be open, mlx-lm is imported all the same, and a job trains."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from safetrain_shared.events import Outcome
from tests.trainer.runs import make_run


def test_a_job_trains_where_the_hard_limit_is_below_what_mlx_lm_sets(
    tmp_path: Path, model: Path, data: tuple[Path, Path]
) -> None:
    run = make_run(tmp_path, model, data, num_epochs=1)
    launch = {"role": "train", "attempt": 1, "seq_floor": 0, "boot_id": "test"}
    run.folder.launch.write_text(json.dumps(launch))
    worker = [sys.executable, "-m", "safetraind.worker", "train", str(run.folder.root)]
    limited = ["bash", "-c", 'ulimit -n 2048 && exec "$0" "$@"', *worker]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    outcome = run.bodies()[-1]
    assert isinstance(outcome, Outcome) and outcome.outcome == "succeeded"

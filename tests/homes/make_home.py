"""Makes an old home for `test_old_homes`: `PYTHONPATH=OLD_VERSION python -m tests.homes.make_home`.

Run in a checkout of that version, whose `tests.harness` talks to its daemon. It leaves NAME.tar.gz
beside this file, with a job that succeeded, one that is paused, and one that waits for that.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
from pathlib import Path

from safetrain_proto.v1 import jobs_pb2
from safetrain_shared.jobs import JobSpec, JobState
from tests.harness import DaemonProcess, wait_for
from tests.tiny import make_chat_data, make_tiny_model

FOLDER = Path("/tmp/safetrain-old-home")
_LEFT_OUT = (".sock", "daemon.log", "worker.log", "gpu.lock", "daemon.lock", "run.lock", ".stderr")
_KEPT_OF_OUTPUTS = ("training_state.json", "training_summary.json", "training_metrics.json")


def main(name: str) -> None:
    """Run the three jobs and pack the home as `name`.tar.gz."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    make_tiny_model(FOLDER / "model")
    make_chat_data(FOLDER, train=12, valid=4)
    daemon = DaemonProcess(FOLDER / "home")
    daemon.start()
    try:
        done = daemon.submit(spec("done", num_epochs=1)).job.id
        daemon.wait_for_state(done, JobState.SUCCEEDED)
        paused = daemon.submit(spec("paused", num_epochs=400)).job.id
        daemon.submit(spec("waiting", num_epochs=1), after=paused)
        wait_for(lambda: daemon.job(paused).step >= 6, 90, "training is under way")
        daemon.jobs.Pause(jobs_pb2.JobRequest(id=paused))
        daemon.wait_for_state(paused, JobState.PAUSED)
        daemon.terminate()
    finally:
        daemon.end()
    with tarfile.open(Path(__file__).with_name(f"{name}.tar.gz"), "w:gz") as tar:
        for file in sorted(FOLDER.glob("home/**/*")):
            if file.is_file() and not file.name.endswith(_LEFT_OUT):
                tar.add(file, file.relative_to(FOLDER))
        for kept in _KEPT_OF_OUTPUTS:
            for file in sorted(FOLDER.glob(f"*/{kept}")):
                tar.add(file, file.relative_to(FOLDER))


def spec(name: str, **settings: int) -> JobSpec:
    """A small job with the output folder `name`."""
    chosen = {"batch_size": 2, "max_seq_length": 64, "save_steps": 3, "log_steps": 1}
    return JobSpec(
        model=str(FOLDER / "model"),
        train=str(FOLDER / "train.jsonl"),
        valid=str(FOLDER / "valid.jsonl"),
        output=str(FOLDER / name),
        name=name,
        settings={**chosen, "lora_layers": 2, "lora_targets": ("self_attn.q_proj",), **settings},
    )


if __name__ == "__main__":
    main(sys.argv[1])

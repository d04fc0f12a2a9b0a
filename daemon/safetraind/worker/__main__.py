"""`python -m safetraind.worker ROLE ARGUMENTS`: starts the one module that plays the role."""

import contextlib
import importlib
import os
import resource
import sys
from pathlib import Path

from safetrain_shared.gc_pause import gc_paused
from safetraind.worker import transformers_index

# Each module has `main(arguments: list[str]) -> int`. They are executed, never imported.
ROLES = {
    "train": "safetraind.worker.training.train",
    "rank": "safetraind.worker.training.train",
    "probe": "safetraind.worker.probe.probe",
    "pilot": "safetraind.worker.pilot.pilot",
    "serve": "safetraind.worker.inference.serve",
    "inspect": "safetraind.worker.data.inspect",
    "prepare": "safetraind.worker.prepare.prepare",
    "preview": "safetraind.worker.data.preview",
    "convert": "safetraind.worker.convert.convert",
    "evaluate": "safetraind.worker.evaluation.evaluation_job",
    "export": "safetraind.worker.export.export",
    "tiny": "safetraind.worker.tiny",
    "fetch": "safetraind.worker.fetch",
}


def main() -> int:
    """Run the role named by the first argument; exit code 2 where there is no such role."""
    if len(sys.argv) < 2 or sys.argv[1] not in ROLES:
        sys.stderr.write(f"usage: python -m safetraind.worker {'|'.join(ROLES)} ARGUMENTS\n")
        return 2
    _keep_locks()
    _offer_itself()
    transformers_index.keep_on_disk()
    _allow_few_open_files()
    with gc_paused():
        module = importlib.import_module(ROLES[sys.argv[1]])
    role: int = module.main(sys.argv[2:])
    return role


def _keep_locks() -> None:
    """Keep programs started by this worker from inheriting the run's lock and the GPU lease.

    The compiler that MLX runs, say, could outlive the worker and keep holding them.
    """
    for name in ("SAFETRAIN_RUN_FD", "SAFETRAIN_LEASE_FD", "SAFETRAIN_OUTPUT_FD"):
        if name in os.environ:
            os.set_inheritable(int(os.environ[name]), False)


def _allow_few_open_files() -> None:
    """Keep a limit that this process may not have from being an error.

    mlx-lm sets the limit of open files to 2,048 of at most 4,096 when it is imported, and cannot be
    imported where the hard limit is lower.
    """
    real = resource.setrlimit

    def within(kind: int, limits: tuple[int, int]) -> None:
        try:
            real(kind, limits)
        except ValueError:
            hard = resource.getrlimit(kind)[1]
            real(kind, (min(limits[0], hard), hard))

    resource.setrlimit = within


def _offer_itself() -> None:
    """Make this worker the kernel's first choice to kill when memory runs out, on Linux.

    It resumes, unlike the daemon or the user's other programs. 0 is an ordinary process, 1000
    always the first.
    """
    with contextlib.suppress(OSError):  # macOS has no such file
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


if __name__ == "__main__":
    sys.exit(main())

"""Paths: the home folder with its sockets and locks, run folders, names in an output folder."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from safetrain_shared.errors import NotAllowed

# A Unix path holds 107 bytes on Linux, 103 on macOS; both ends use the smaller.
SOCKET_PATH_BYTES = 103

# File and folder names in a job's output folder.
PREFLIGHT_REPORT = "preflight_report.json"
RECOMMENDED_CONFIG = "recommended_config.json"
ADAPTERS = "adapters"
METRICS_JSON = "training_metrics.json"
METRICS_CSV = "training_metrics.csv"
SUMMARY = "training_summary.json"
STATE = "training_state.json"
PLOTS = "plots"
EVALUATION = "evaluation"
EVALUATION_RESULT = "evaluation.json"  # in EVALUATION
QUESTIONS = "questions.jsonl"  # beside the training file: held-out questions
SPLIT = "split-"  # a folder of the output folder: the files that submit --split made; with a hash
PREPARED = "prepared.json"  # what prepare made the files beside it of
REPORT = "report.html"  # in PLOTS
TENSORBOARD = "tensorboard"


def checkpoint_name(epoch: int, step_in_epoch: int) -> str:
    """Return the folder name of a checkpoint after `step_in_epoch` steps of `epoch` (from 0)."""
    return f"checkpoint_epoch_{epoch}_step_{step_in_epoch}"


def default_home() -> Path:
    """Return the platform's folder for application state, or one below `$XDG_STATE_HOME`."""
    if base := os.environ.get("XDG_STATE_HOME"):
        return Path(base) / "safetrain"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "safetrain"
    return Path.home() / ".local" / "state" / "safetrain"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one job, or of one ephemeral worker, below `$SAFETRAIN_HOME/runs`."""

    root: Path

    @property
    def spec(self) -> Path:
        """The frozen `JobSpec`, JSON."""
        return self.root / "spec.json"

    @property
    def plan(self) -> Path:
        """The frozen `Plan`, JSON; absent before the probe."""
        return self.root / "plan.json"

    @property
    def launch(self) -> Path:
        """The worker that is being started, JSON: role, attempt, seq_floor, boot_id."""
        return self.root / "launch.json"

    @property
    def events(self) -> Path:
        """The job's events; see `safetraind.storage.event_file`."""
        return self.root / "events.log"

    @property
    def delivered(self) -> Path:
        """The highest `seq` delivered to any client; see `storage.delivered_watermark`."""
        return self.root / "told"  # its name since the first homes, which must open

    @property
    def intent(self) -> Path:
        """A request to the worker, `pause` or `cancel`, which it reads at every step."""
        return self.root / "intent"

    @property
    def lock(self) -> Path:
        """Lock (flock) of keeper and worker: while it is held, only the worker writes events."""
        return self.root / "run.lock"

    @property
    def exit(self) -> Path:
        """How the worker ended, JSON; written by the keeper."""
        return self.root / "exit.json"

    @property
    def log(self) -> Path:
        """Standard output and error of keeper and worker."""
        return self.root / "worker.log"

    @property
    def probe(self) -> Path:
        """The result of an ephemeral worker, such as a probe or an inspection, JSON."""
        return self.root / "probe.json"

    @property
    def partial(self) -> Path:
        """What an ephemeral worker writes while it works, JSON, one object a line."""
        return self.root / "probe.json.partial"

    @property
    def fallbacks(self) -> Path:
        """The out-of-memory fallbacks that would save memory in this training, JSON.

        Written by its worker; see `safetraind.scheduler.oom_fallback`.
        """
        return self.root / "rungs.json"  # its name since the first homes, which must open

    @property
    def left_at_warning(self) -> Path:
        """Empty marker file: the training has already left memory at the system's warning level.

        The worker then does not leave for that level again.
        """
        return self.root / "left_at_warning"

    def rank(self, number: int) -> RunFolder:
        """Return the run folder of a rank of this job: rank 0's is the job's own."""
        return RunFolder(self.root / "ranks" / str(number)) if number else self

    @property
    def heartbeat(self) -> Path:
        """What a rank is doing, and until when to wait for it, JSON.

        Absent where a worker trains alone.
        """
        return self.root / "heartbeat.json"

    @property
    def machine(self) -> Path:
        """The name of the other machine on which this rank runs; absent for one of this machine."""
        return self.root / "machine"

    @property
    def hosts(self) -> Path:
        """The addresses of all ranks, or their RDMA devices, as MLX reads them, JSON."""
        return self.root / "hosts.json"

    @property
    def socket(self) -> Path:
        """The socket on which the worker takes questions."""
        return short_socket(self.root / "ask.sock")


@dataclass(frozen=True, slots=True)
class Home:
    """The state folder of one daemon."""

    root: Path

    @property
    def socket(self) -> Path:
        """The daemon's socket; outside the home where its path would be too long for a socket."""
        return short_socket(self.root / "daemon.sock")

    @property
    def lock(self) -> Path:
        """Lock (flock) of the one daemon of this home."""
        return self.root / "daemon.lock"

    @property
    def database(self) -> Path:
        """The jobs, SQLite."""
        return self.root / "jobs.db"

    @property
    def log(self) -> Path:
        """The daemon's log."""
        return self.root / "daemon.log"

    @property
    def models(self) -> Path:
        """The folder of models that were added."""
        return self.root / "models"

    @property
    def learned(self) -> Path:
        """The planner's cache of measurements; see `safetraind.planner.measurement_cache`."""
        return self.root / "learned"

    def run(self, name: int | str) -> RunFolder:
        """Return the run folder of a job (by id) or of an ephemeral worker (by name)."""
        return RunFolder(self.root / "runs" / str(name))

    def lease(self, device: str) -> Path:
        """Return the lock file of the GPU lease.

        On a GPU there is one per user and machine, on a CPU one per home.
        """
        return (self.root if device == "cpu" else default_home()) / "gpu.lock"


def home() -> Home:
    """Return the home in use: `$SAFETRAIN_HOME`, else the platform's folder."""
    chosen = os.environ.get("SAFETRAIN_HOME")
    return Home(Path(chosen).expanduser().resolve() if chosen else default_home())


def short_socket(path: Path) -> Path:
    """Return `path` where it fits a Unix socket address, else a short path derived from it."""
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    import hashlib  # takes a hundredth of a short command's time

    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:24]
    return runtime_folder() / f"{digest}.sock"


def nearest_existing(path: Path) -> Path:
    """Return `path`, or its nearest parent that exists and is accessible."""
    return next(place for place in (path, *path.parents) if os.path.exists(place))  # noqa: PTH110


def runtime_folder() -> Path:
    """Return the folder for sockets of homes with long paths. Call `private` on it before use."""
    return Path("/tmp") / f"safetrain-{os.getuid()}"


def socket_target(path: Path) -> str:
    """Return the gRPC target `unix:PATH` of a socket, with URI characters in PATH escaped."""
    text = str(path)
    for character in "%#?":  # the percent sign first
        text = text.replace(character, f"%{ord(character):02X}")
    return f"unix:{text}"


def trusted(socket: Path) -> Path:
    """Return `socket` if only this user can have opened it, in a folder of this user alone.

    Raises NotAllowed where it is anything else, FileNotFoundError where it is missing.
    """
    if socket.parent.exists():
        check_private(socket.parent)
    found = socket.lstat()
    ours = stat.S_ISSOCK(found.st_mode) and found.st_uid == os.getuid()
    if not ours or stat.S_IMODE(found.st_mode) & 0o077:
        raise NotAllowed("socket.foreign", path=str(socket))
    return socket


def private(folder: Path, *, parents: bool = False) -> Path:
    """Create `folder` if it is missing, for this user alone (mode 0700), and return it.

    Without `parents` its parent must be there: a home that was deleted is not made again by who
    still works for it. Raises FileNotFoundError, and what `check_private` raises.
    """
    folder.mkdir(mode=0o700, parents=parents, exist_ok=True)
    return check_private(folder)


def check_private(folder: Path) -> Path:
    """Return `folder` if it is a folder (no link) of this user that nobody else may write to.

    Raises NotAllowed. Permissions are never changed: others may use the folder too.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise NotAllowed("home.foreign", path=str(folder))
    if stat.S_IMODE(found.st_mode) & 0o022:
        raise NotAllowed("home.open", path=str(folder))
    return folder

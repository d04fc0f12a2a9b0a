"""Where things lie: the home, its sockets and locks, a run, the names in an output folder."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from safetrain_shared.errors import NotAllowed

# A Unix path holds 107 bytes on Linux, 103 on macOS; both ends use the smaller.
SOCKET_PATH_BYTES = 103

# The names of the user's document, in a job's output folder.
PREFLIGHT_REPORT = "preflight_report.json"
RECOMMENDED_CONFIG = "recommended_config.json"
ADAPTERS = "adapters"
METRICS_JSON = "training_metrics.json"
METRICS_CSV = "training_metrics.csv"
SUMMARY = "training_summary.json"
STATE = "training_state.json"
PLOTS = "plots"
EVALUATION = "evaluation"
REPORT = "report.html"  # in PLOTS
TENSORBOARD = "tensorboard"


def checkpoint_name(epoch: int, step_in_epoch: int) -> str:
    """The folder of a checkpoint: `step_in_epoch` optimizer steps were done in `epoch`, from 0."""
    return f"checkpoint_epoch_{epoch}_step_{step_in_epoch}"


def default_home() -> Path:
    """The platform's folder for an application's state, or below `$XDG_STATE_HOME`."""
    if base := os.environ.get("XDG_STATE_HOME"):
        return Path(base) / "safetrain"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "safetrain"
    return Path.home() / ".local" / "state" / "safetrain"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one job, or of one passing worker, below `$SAFETRAIN_HOME/runs`."""

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
        """Which worker is being started and why, JSON: role, attempt, seq_floor, boot_id."""
        return self.root / "launch.json"

    @property
    def events(self) -> Path:
        """The job's story; see `safetraind.storage.event_file`."""
        return self.root / "events.log"

    @property
    def delivered(self) -> Path:
        """The highest `seq` delivered to any client; see `storage.delivered_watermark`."""
        return self.root / "told"

    @property
    def intent(self) -> Path:
        """`pause` or `cancel`, renamed into place; read by the worker at every step."""
        return self.root / "intent"

    @property
    def lock(self) -> Path:
        """Held (flock) by keeper and worker: while it is, the event file is the worker's."""
        return self.root / "run.lock"

    @property
    def exit(self) -> Path:
        """How the worker ended, by the keeper, JSON."""
        return self.root / "exit.json"

    @property
    def log(self) -> Path:
        """Standard output and error of keeper and worker."""
        return self.root / "worker.log"

    @property
    def probe(self) -> Path:
        """What a probe or inspection found, JSON."""
        return self.root / "probe.json"

    @property
    def fallbacks(self) -> Path:
        """What would save this training memory, by its worker, JSON (see `jobs.ladder`)."""
        return self.root / "rungs.json"

    @property
    def left_at_warning(self) -> Path:
        """Empty; there once the training left the memory at the system's warning level, which is
        then no reason to leave again.
        """
        return self.root / "left_at_warning"

    @property
    def socket(self) -> Path:
        """Where the worker takes questions."""
        return short_socket(self.root / "ask.sock")


@dataclass(frozen=True, slots=True)
class Home:
    """The state folder of one daemon."""

    root: Path

    @property
    def socket(self) -> Path:
        """The daemon's socket; elsewhere when the home's path is too long for one."""
        return short_socket(self.root / "daemon.sock")

    @property
    def lock(self) -> Path:
        """Held (flock) by the one daemon of this home."""
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
        """Models that were added."""
        return self.root / "models"

    @property
    def learned(self) -> Path:
        """What probes and runs taught the planner."""
        return self.root / "learned"

    def run(self, name: int | str) -> RunFolder:
        """The run folder of a job (its id) or of a passing worker (a name)."""
        return RunFolder(self.root / "runs" / str(name))

    def lease(self, device: str) -> Path:
        """The GPU lease: one per user and machine on a GPU, one per home on a CPU."""
        return (self.root if device == "cpu" else default_home()) / "gpu.lock"


def home() -> Home:
    """The home in use: `$SAFETRAIN_HOME`, or the platform's folder."""
    chosen = os.environ.get("SAFETRAIN_HOME")
    return Home(Path(chosen).expanduser().resolve() if chosen else default_home())


def short_socket(path: Path) -> Path:
    """`path` where it fits a Unix address, else a short one that both ends compute alike."""
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    import hashlib  # a hundredth of the time that a short command takes

    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:24]
    return runtime_folder() / f"{digest}.sock"


def nearest_existing(path: Path) -> Path:
    """Return `path`, or the nearest folder above it that is there and may be seen."""
    return next(place for place in (path, *path.parents) if os.path.exists(place))  # noqa: PTH110


def runtime_folder() -> Path:
    """The private folder for sockets of long homes. `private` must have passed before its use."""
    return Path("/tmp") / f"safetrain-{os.getuid()}"


def socket_target(path: Path) -> str:
    """The socket as gRPC takes it: `unix:` and a path is a URI, so what means something in one is
    escaped.
    """
    text = str(path)
    for character in "%#?":  # the percent sign first
        text = text.replace(character, f"%{ord(character):02X}")
    return f"unix:{text}"


def trusted(socket: Path) -> Path:
    """Returns `socket` where it is one that only we can have opened, in a folder of ours alone.

    Raises NotAllowed where it is anything else, FileNotFoundError where it is not there.
    """
    if socket.parent.exists():
        check_private(socket.parent)
    found = socket.lstat()
    ours = stat.S_ISSOCK(found.st_mode) and found.st_uid == os.getuid()
    if not ours or stat.S_IMODE(found.st_mode) & 0o077:
        raise NotAllowed("socket.foreign", path=str(socket))
    return socket


def private(folder: Path) -> Path:
    """Makes `folder` where it is missing, for us alone (mode 0700), and returns it.

    Raises what `check_private` raises.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return check_private(folder)


def check_private(folder: Path) -> Path:
    """Returns `folder` where it is a real folder, ours, and nobody else may write in it.

    Raises NotAllowed. Rights are never changed: the folder may serve others too.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise NotAllowed("home.foreign", path=str(folder))
    if stat.S_IMODE(found.st_mode) & 0o022:
        raise NotAllowed("home.open", path=str(folder))
    return folder

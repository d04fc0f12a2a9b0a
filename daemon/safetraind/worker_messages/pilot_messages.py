"""Messages of the role `pilot`: short trainings at several learning rates."""

from __future__ import annotations

from dataclasses import dataclass

from safetrain_shared.settings import TrainingSettings
from safetraind.worker_messages.role import Role, WorkerProgress


@dataclass(frozen=True, slots=True)
class PilotRequest:
    """A request to try learning rates. `rates`: in the order to try, within `seconds`.

    Limits are bytes; 0: none. `valid` is empty where samples of `train` are to be held out.
    """

    model: str
    train: str
    valid: str
    settings: TrainingSettings
    rates: tuple[float, ...]
    seconds: float
    length_bucket: int
    trust_remote_code: bool = False
    memory_limit: int = 0
    cache_limit: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """`loss` of held-out samples after the steps at `rate`; None: it diverged."""

    rate: float
    loss: float | None


@dataclass(frozen=True, slots=True)
class PilotResult:
    """The trials of a pilot. `base`: the loss before the first step. `steps`: of each trial."""

    base: float
    steps: int
    trials: tuple[Trial, ...]


PILOT = Role("pilot", WorkerProgress, PilotResult)

"""Messages of the role `probe`: setups to run real training steps of, and what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from safetrain_shared.findings import Finding
from safetrain_shared.settings import TrainingSettings
from safetraind.worker_messages.role import Progress, Role


@dataclass(frozen=True, slots=True)
class Step:
    """The largest micro-batch of a run: rows × width tokens, of which `learned` go through the
    head. `valid_width`, `valid_learned`: the same of the widest batch of an evaluation, 0 where
    that is no wider.
    """

    rows: int
    width: int
    learned: int
    valid_width: int = 0
    valid_learned: int = 0


@dataclass(frozen=True, slots=True)
class Setup:
    """Settings and a shape to run real steps of."""

    settings: TrainingSettings
    step: Step


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """Run the setups in turn, within `seconds`. An empty `model`: only the device is tried.

    `memory_limit`, `cache_limit`: bytes, for MLX's allocator; 0: as they are.
    """

    model: str = ""
    setups: tuple[Setup, ...] = ()
    trust_remote_code: bool = False
    memory_limit: int = 0
    cache_limit: int = 0
    seconds: float = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Device:
    """The device that the probe computed on: `kind` is metal, cuda or cpu. Sizes are bytes.

    `works`: a real operation gave the right result. Limits are 0 where the device reports none.
    """

    kind: str
    works: bool = True
    name: str = ""
    memory: int = 0
    working_set: int = 0
    largest_buffer: int = 0
    resources: int = 0
    fast_float32: bool = True
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """How loading and one generated token went; `cause`: why it failed. Seconds."""

    seconds: float
    token: str = ""
    cause: Finding | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """Real steps of one setup. Bytes; tokens a second with padding.

    `outside`: what the process cost beside MLX's arrays. `died`: it ran out of memory where MLX was
    allowed `peak` bytes.
    """

    settings: TrainingSettings
    step: Step
    peak: int
    tokens_per_second: float = 0.0
    outside: int = 0
    died: bool = False


@dataclass(frozen=True, slots=True)
class ProbeLine:
    """One of these at a time, as it is found: the process may die of what it tries.

    `trying`: a setup, before it is run. `slow`: seconds that the next step would have taken, for
    which there was no time. `out_of_memory`: MLX raised it; the process then ends with an error.
    """

    progress: Progress | None = None
    device: Device | None = None
    loaded: Loaded | None = None
    splits_head: bool | None = None
    trying: Setup | None = None
    measure: Measure | None = None
    slow: float | None = None
    out_of_memory: bool | None = None


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """All that a probe found, and what is kept of it for the next preflight.

    `splits_head`: the loss can be computed in chunks. `slow` as in `ProbeLine`.
    """

    FORMAT: ClassVar[int] = 4

    device: Device | None = None
    loaded: Loaded | None = None
    splits_head: bool | None = None
    measures: tuple[Measure, ...] = ()
    slow: float | None = None


PROBE = Role("probe", ProbeLine, ProbeResult)

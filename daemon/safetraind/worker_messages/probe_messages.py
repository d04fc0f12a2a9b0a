"""Messages of the role `probe`: setups to measure with real training steps, and the findings."""

from __future__ import annotations

from dataclasses import dataclass

from safetrain_shared.findings import Finding
from safetrain_shared.settings import TrainingSettings
from safetraind.worker_messages.role import Role, WorkerProgress


@dataclass(frozen=True, slots=True)
class Step:
    """The largest micro-batch of a run: rows × width tokens, of which `learned` go through the
    head.

    `valid_width`, `valid_learned`: those of the widest batch of an evaluation, 0 where it is no
    wider.
    """

    rows: int
    width: int
    learned: int
    valid_width: int = 0
    valid_learned: int = 0

    @property
    def tokens(self) -> int:
        """The tokens of the micro-batch, padding included."""
        return self.rows * self.width


@dataclass(frozen=True, slots=True)
class Setup:
    """Settings and a shape to run real steps of. `limit`: MLX's memory limit, in bytes; 0: as it
    is. `narrower`: other shapes of the same run, whose peak counts where the step is near the
    limit. `small`: it only tells about larger ones, so that its highest peak near the limit need
    not be found. `sample`: micro-batches of an epoch, each of another shape, to be timed.
    """

    settings: TrainingSettings
    step: Step
    limit: int = 0
    narrower: tuple[Step, ...] = ()
    small: bool = False
    sample: tuple[Step, ...] = ()


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
    """The time in seconds of loading and of one generated token. `cause`: the finding where it
    failed.
    """

    seconds: float
    token: str = ""
    cause: Finding | None = None


# Under memory limits that differ by no more a peak is about the same. A plan is trained under that
# of its own measure (`planner.judge`), so that it is the same.
_SAME_LIMIT = 0.1


@dataclass(frozen=True, slots=True)
class Measure:
    """Real steps of one setup, in bytes, and tokens a second with padding. `update_seconds`: the
    part of each step that applies the gradient.

    `outside`: what the process cost beside MLX's arrays. `died`: it ran out of memory where MLX was
    allowed `peak` bytes. `limit`: MLX's memory limit then, 0 where it is not known.
    `sample`: the seconds of micro-batches of an epoch, without applying the gradient.
    """

    settings: TrainingSettings
    step: Step
    peak: int
    tokens_per_second: float = 0.0
    outside: int = 0
    died: bool = False
    update_seconds: float = 0.0
    limit: int = 0
    sample: tuple[tuple[Step, float], ...] = ()

    def holds_under(self, limit: int) -> bool:
        """Return whether a step under a memory limit of so many bytes would take as much as this
        one.

        Below its limit MLX runs ahead of what is needed: a step that took more than `limit` allows
        may take less under it, and one that was held back may take more without.
        """
        if not self.limit or self.peak <= min(self.limit, limit):
            return True
        return abs(self.limit - limit) <= _SAME_LIMIT * limit

    @property
    def seconds(self) -> float:
        """Seconds of one micro-batch, without applying the gradient."""
        return max(0.0, self.step.tokens / self.tokens_per_second - self.update_seconds)


@dataclass(frozen=True, slots=True)
class ProbeLine:
    """One item of the output, written as it is found, since the process may die of the next step.

    `unsupported`: a setting that the model would be trained wrongly with; nothing was run.
    `trying`: a setup, before it is run. `slow`: seconds that the next step would have taken, for
    which there was no time. `out_of_memory`: MLX raised it; the process then ends with an error.
    """

    progress: WorkerProgress | None = None
    device: Device | None = None
    loaded: Loaded | None = None
    splits_head: bool | None = None
    unsupported: str | None = None
    trying: Setup | None = None
    measure: Measure | None = None
    slow: float | None = None
    out_of_memory: bool | None = None


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The findings of a probe, kept for the next preflight.

    `splits_head`: the loss can be computed in chunks. `unsupported`: settings that the model would
    be trained wrongly with. `slow` as in `ProbeLine`.
    """

    device: Device | None = None
    loaded: Loaded | None = None
    splits_head: bool | None = None
    unsupported: tuple[str, ...] = ()
    measures: tuple[Measure, ...] = ()
    slow: float | None = None

    def plus(self, line: ProbeLine) -> ProbeResult:
        """Return the sum of this and a line. Measures and unsupported settings add up; any other
        field takes the newest value.
        """
        return ProbeResult(
            device=line.device or self.device,
            loaded=line.loaded or self.loaded,
            splits_head=self.splits_head if line.splits_head is None else line.splits_head,
            unsupported=(*self.unsupported, *([line.unsupported] if line.unsupported else [])),
            measures=(*self.measures, *([line.measure] if line.measure else [])),
            slow=self.slow if line.slow is None else line.slow,
        )


PROBE = Role("probe", ProbeLine, ProbeResult)

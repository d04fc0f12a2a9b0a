"""What preflight knows when it judges: machine, packages, device, data, model, disk. Plain values.

None stands for what was not gathered, which no check takes for good or bad.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from safetrain_shared.findings import Finding, Status
from safetraind.host import HostFacts
from safetraind.models.model_config import ModelFacts


@dataclass(frozen=True, slots=True)
class Package:
    """A package as the worker found it: `version` is empty where it cannot be imported."""

    version: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    """The device that the probe computed on: `kind` is metal, cuda or cpu. Sizes are bytes.

    `works`: a real operation gave the right result. Limits are 0 where the device tells none.
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


# The place of the first learned token where nothing of a sample is learned.
NEVER = 1 << 30


@dataclass(frozen=True, slots=True)
class SampleProblem:
    """How `count` samples are rendered otherwise than they stand in their file; the first of them
    is in `line`, and `args` speak of it.
    """

    code: str
    status: Status
    args: Mapping[str, Any]
    line: int
    count: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """Samples by their number of tokens, and by the place of their first learned token.

    `tops`: of the longest samples, longest first, the tokens and those that are learned. `scale`:
    samples in the file for each one counted; 1.0 means exact counts. `failed`: samples that the
    tokenizer refuses, the first of them in `line`. Of those counted: `distinct` answers (0: not
    known), and answers that are JSON, `structured`.
    """

    tokens: tuple[tuple[int, int], ...]
    answers: tuple[tuple[int, int], ...]
    longest: int
    tops: tuple[tuple[int, int], ...] = ()
    scale: float = 1.0
    failed: int = 0
    line: int = 0
    reason: str = ""
    distinct: int = 0
    structured: int = 0
    problems: tuple[SampleProblem, ...] = ()

    def cut(self, length: int) -> int:
        """Samples with more than `length` tokens."""
        return round(self.scale * sum(n for tokens, n in self.tokens if tokens > length))

    def left_out(self, length: int) -> int:
        """Samples that keep nothing to learn within `length` tokens."""
        return round(self.scale * sum(n for first, n in self.answers if first >= length))

    @property
    def counted(self) -> int:
        """Samples that the counts speak of, before scaling."""
        return sum(n for _, n in self.tokens)


@dataclass(frozen=True, slots=True)
class DataFile:
    """One training file. `counts`: how many of each kind of problem, by code. `preview`: some
    samples as the model sees them, as `worker.data.preview` writes them.
    """

    path: str
    format: str
    lines: int
    samples: int
    size: int
    errors: int
    warnings: int
    counts: Mapping[str, int]
    lengths: Lengths | None = None
    preview: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Data:
    """Both files; None for one that cannot be read, whose finding is among `problems`.

    `tokenizer_reason`: why the model's tokenizer could not be loaded; empty when it was, or when
    there was no model to ask. `templates`: the names of its chat templates, where they have names.
    `lost_keys`: of config.json, those that change the model and that mlx-lm drops; `dropped_keys`:
    others that it drops;
    `missing_targets`: of lora_targets, those that are no layers of the model, with names that are.
    """

    train: DataFile | None
    valid: DataFile | None
    problems: tuple[Finding, ...] = ()
    tokenizer_reason: str = ""
    chat_template: bool = True
    templates: tuple[str, ...] = ()
    lost_keys: tuple[str, ...] = ()
    dropped_keys: tuple[str, ...] = ()
    missing_targets: tuple[str, ...] = ()
    known_targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """How loading and one generated token went in the probe; `cause`: why it failed."""

    seconds: float
    token: str = ""
    cause: Finding | None = None


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes free where the job writes and where models are kept; `writable` is the reason why
    the output folder cannot be written, empty when it can.
    """

    output: str
    free: int
    models_free: int
    same_disk: bool
    unwritable: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it. `busy`: the GPU was held by another process, so nothing could be measured.
    `inspection_end`: why the inspection of the files wrote no result.
    `too_slow`: seconds that were not enough to measure, 0 where they were.
    """

    host: HostFacts
    disk: Disk
    model: ModelFacts
    python: str = ""
    compiler: str = ""
    openblas: str = ""
    packages: Mapping[str, Package] = field(default_factory=dict)
    data: Data | None = None
    inspection_end: Finding | None = None
    device: Device | None = None
    loaded: Loaded | None = None
    busy: bool = False
    too_slow: float = 0.0


def packages_from(values: Mapping[str, Mapping[str, str]]) -> dict[str, Package]:
    """The packages as the inspect worker wrote them."""
    return {name: Package(**value) for name, value in values.items()}


def data_file_from(value: Mapping[str, Any] | None) -> DataFile | None:
    """A file's facts as the inspect worker wrote them."""
    if value is None:
        return None
    lengths = value.get("lengths")
    return DataFile(**{**value, "lengths": lengths and _lengths_from(lengths)})


def _lengths_from(value: Mapping[str, Any]) -> Lengths:
    pairs = {name: tuple((n, c) for n, c in value[name]) for name in ("tokens", "answers", "tops")}
    found = value.get("problems", ())
    problems = tuple(SampleProblem(**{**p, "status": Status(p["status"])}) for p in found)
    return Lengths(**{**value, **pairs, "problems": problems})

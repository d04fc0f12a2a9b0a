"""Messages of the role `inspect`: training files to inspect, and the findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from safetrain_shared.errors import ArgValue
from safetrain_shared.findings import Finding, Status
from safetraind.worker_messages.preview_messages import PreviewSample
from safetraind.worker_messages.role import Role

# The place of the first learned token where nothing of a sample is learned.
NEVER = 1 << 30


@dataclass(frozen=True, slots=True)
class InspectRequest:
    """A request to inspect: `files`, to validate them alone; else both files of a job, for
    preflight.

    `model`: a folder, whose tokenizer counts; empty: none. `vocabulary`: rows of the model's
    embedding; 0: unknown. `targets`: the setting `lora_targets`. `questions`: the question set of
    the job's evaluation, of which at most `question_limit` are asked, 0: all; empty: none is named.
    """

    train: str = ""
    valid: str = ""
    model: str = ""
    vocabulary: int = 0
    targets: tuple[str, ...] = ()
    mask_prompt: bool = True
    thinking: str = "given"
    trust_remote_code: bool = False
    questions: str = ""
    question_limit: int = 0
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Package:
    """A package as the worker found it: `version` is empty where it cannot be imported."""

    version: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FileProgress:
    """The bytes of a file that were read."""

    path: str
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class FileSummary:
    """A file that was read to its end."""

    path: str
    lines: int
    samples: int
    problems: int
    format: str


@dataclass(frozen=True, slots=True)
class InspectLine:
    """One line of an inspection; one field is set. `counting`: the file whose tokens are being
    counted.
    """

    packages: Mapping[str, Package] | None = None
    problem: Finding | None = None
    progress: FileProgress | None = None
    summary: FileSummary | None = None
    counting: str | None = None


@dataclass(frozen=True, slots=True)
class SampleProblem:
    """A difference between `count` samples and their rendering. `line` is the line of the first of
    them, which `args` describe.
    """

    code: str
    status: Status
    args: Mapping[str, ArgValue]
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
    problems: tuple[SampleProblem, ...] = ()
    distinct: int = 0
    structured: int = 0

    def cut(self, length: int) -> int:
        """Return the number of samples with more than `length` tokens."""
        return round(self.scale * sum(n for tokens, n in self.tokens if tokens > length))

    def left_out(self, length: int) -> int:
        """Return the number of samples that keep nothing to learn within `length` tokens."""
        return round(self.scale * sum(n for first, n in self.answers if first >= length))

    @property
    def counted(self) -> int:
        """The number of samples that were counted, before scaling."""
        return sum(n for _, n in self.tokens)


@dataclass(frozen=True, slots=True)
class DataFile:
    """One training file. `counts`: the number of each kind of problem, by code.

    `preview`: some samples as the model sees them. `unlearned`: the number of answers whose message
    excludes them from learning.
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
    preview: tuple[PreviewSample, ...] = ()
    unlearned: int = 0


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """Whether the model's tokenizer could be loaded, with the reason if not, and whether it has a
    chat template.

    `templates`: the names of its templates, where they have names.
    """

    loaded: bool = True
    reason: str = ""
    chat_template: bool = True
    templates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelReading:
    """The facts about the model in config.json alone.

    `lost`: keys that change the model and that mlx-lm drops; `dropped`: the other keys that it
    drops, as far as they are not known to be bookkeeping; `missing`: targets that are no layers of
    the model; `known`: names that are.
    """

    lost: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    known: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InspectResult:
    """Both files; None for one that cannot be read, whose problem was reported. `tokenizer`: None
    where no model was given.
    """

    train: DataFile | None = None
    valid: DataFile | None = None
    packages: Mapping[str, Package] = field(default_factory=dict)
    tokenizer: TokenizerFacts | None = None
    model: ModelReading | None = None


INSPECT = Role("inspect", InspectLine, InspectResult)

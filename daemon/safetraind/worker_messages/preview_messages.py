"""Messages of the role `preview`: samples of a file as the model sees them."""

from __future__ import annotations

from dataclasses import dataclass

from safetrain_shared.findings import Finding
from safetraind.worker_messages.role import Role, WorkerProgress


@dataclass(frozen=True, slots=True)
class PreviewRequest:
    """A request for samples. `model`: a folder, or with `hub` an id whose tokenizer is downloaded.

    `samples`: the number to show. `length`: tokens beyond which a sample would be cut; 0: none.
    """

    path: str
    model: str
    hub: bool = False
    samples: int = 3
    length: int = 0
    mask_prompt: bool = True
    thinking: str = "given"
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class PreviewPiece:
    """A run of tokens that are all learned, or all not; `cut`: beyond the length."""

    text: str
    learned: bool
    cut: bool


@dataclass(frozen=True, slots=True)
class PreviewSample:
    """One sample. `learned`: the number of its tokens that are learned and not cut."""

    line: int
    pieces: tuple[PreviewPiece, ...] = ()
    tokens: int = 0
    learned: int = 0
    problems: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class PreviewResult:
    """The first samples, and the lengths in tokens of the `counted` ones.

    `cut` are longer than the length, `lost` keep nothing to learn within it, `failed` could not be
    rendered.
    """

    samples: tuple[PreviewSample, ...] = ()
    counted: int = 0
    median: int = 0
    longest: int = 0
    cut: int = 0
    lost: int = 0
    failed: int = 0


PREVIEW = Role("preview", WorkerProgress, PreviewResult)

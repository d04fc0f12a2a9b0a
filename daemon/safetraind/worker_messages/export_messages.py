"""Messages of the role `export`: base and adapter to fuse, and the model that was written."""

from __future__ import annotations

from dataclasses import dataclass

from safetrain_shared.gguf_types import GGUF_TYPES
from safetraind.worker_messages.role import Role, WorkerProgress

TOLERANCE = 0.05
"""The largest share of the adapter's effect that may be lost."""

ROUNDED_TOLERANCE, ROUNDED_DIFFERING = 0.25, 0.05
"""The tolerance of a file whose weights are all rounded to 8 bits, and the share of tokens that may
then differ. Rounding the base counts too: 12% of a weak adapter's effect on the demo model."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of an export, as the manifest of the output folder keeps it: a job and its
    base.
    """

    job: int
    base: str
    adapter: str


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """A request to export. `model`: a folder or a hub id. `adapter`, `output`: folders.

    `valid`: a training file to take questions from. `thinking`: the setting of the training.
    `gguf`: write a GGUF file too, its matrices stored as `gguf_type`. `dequantize`: 16 bits
    throughout.
    """

    model: str
    adapter: str
    output: str
    valid: str = ""
    thinking: str = "given"
    gguf: bool = False
    gguf_type: str = GGUF_TYPES[0]
    dequantize: bool = False
    trust_remote_code: bool = False
    about: Origin | None = None


@dataclass(frozen=True, slots=True)
class Agreement:
    """The agreement of a fused model with base and adapter.

    `lost`: the distance of their logits, relative to the distance between base and adapter, both
    root mean squares; 0 means that nothing of the adapter's effect is lost, 1 all of it. `tokens`:
    greedy tokens that were compared. `differing`: those that differ, near ties not counted.
    """

    lost: float
    tokens: int
    differing: int

    @property
    def good(self) -> bool:
        """Whether the fused model can replace base and adapter."""
        return self.lost <= TOLERANCE and not self.differing

    @property
    def good_for_rounded(self) -> bool:
        """Whether a file whose weights are rounded can replace base and adapter."""
        return self.lost <= ROUNDED_TOLERANCE and self.differing <= ROUNDED_DIFFERING * self.tokens


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A GGUF file in the output folder."""

    path: str
    agreement: Agreement
    type: str = GGUF_TYPES[0]


@dataclass(frozen=True, slots=True)
class Exported:
    """The exported model: `bytes` of its folder `path`, the `bits` of its fused layers."""

    quantized: bool
    bits: int
    agreement: Agreement
    gguf: GgufFile | None = None
    modelfile: bool = False
    path: str = ""
    bytes: int = 0


EXPORT = Role("export", WorkerProgress, Exported)

"""The facts that preflight judges: machine, packages, device, data, model, disk. Plain values.

None: the fact was not gathered, and no check judges it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from safetrain_shared.findings import Finding
from safetraind.host import HostFacts
from safetraind.models.model_config import ModelFacts
from safetraind.worker_messages.inspect_messages import DataFile, Package
from safetraind.worker_messages.probe_messages import Device, Loaded


@dataclass(frozen=True, slots=True)
class Data:
    """The facts about both files; None for one that cannot be read, whose finding is among
    `problems`.

    `tokenizer_reason`: why the model's tokenizer could not be loaded; empty when it was, or when
    there was no model. `templates`: the names of its chat templates, where they have names.
    `lost_keys`: keys of config.json that change the model and that mlx-lm drops. `dropped_keys`:
    others that it drops. `missing_targets`: those of lora_targets that are no layers of the model.
    `known_targets`: names that are.
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
class Disk:
    """Free bytes where the job writes and where models are kept. `unwritable`: the reason why the
    output folder cannot be written, empty when it can.
    """

    output: str
    free: int
    models_free: int
    same_disk: bool
    unwritable: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All facts of a preflight.

    `busy`: the GPU was held by another process, so nothing could be measured. `inspection_end`: why
    the inspection of the files wrote no result. `too_slow`: seconds that measuring would
    have taken at least, 0 where there was time for it.
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

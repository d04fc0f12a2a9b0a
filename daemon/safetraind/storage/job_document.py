"""All that is frozen when a job is submitted: `spec.json`, and `document` in SQLite."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from safetrain_shared.jobs import JobSpec, Plan

# Settings that change when a training computes, never what; and the time of a pilot, whose outcome,
# a rate, is frozen in the plan.
NOT_THE_TRAINING = ("ignore_pressure", "segment_minutes", "rest_minutes", "pilot_minutes")


@dataclass(frozen=True, slots=True)
class DataFile:
    """A training file as it was when the job was submitted. `bytes`: its size."""

    path: str
    sha256: str
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The model that a job loads: `path` is a folder, or a repository's id where `hub` is true."""

    path: str
    hub: bool = False


@dataclass(frozen=True, slots=True)
class Forecast:
    """The prediction at submit. `plan` is None where too little was known. `tokens`: those of the
    whole training by that plan, padding included.
    """

    plan: Plan | None = None
    tokens: float = 0.0


@dataclass(frozen=True, slots=True)
class JobDocument:
    """A job as it was accepted. `data` has the files `train` and `valid`; `job` is the job's id."""

    FORMAT: ClassVar[int] = 1

    spec: JobSpec
    model: ModelSource
    data: Mapping[str, DataFile]
    seed: int = 0
    forecast: Forecast = field(default_factory=Forecast)
    job: int = 0

    @property
    def fingerprint(self) -> str:
        """The training's identity: SHA-256 of the model, the data, the chosen settings and the
        seed.

        Two trainings of one fingerprint may continue from each other's checkpoints.
        """
        data = {name: file.sha256 for name, file in sorted(self.data.items())}
        settings = {k: v for k, v in self.spec.settings.items() if k not in NOT_THE_TRAINING}
        what = [self.model.path, data, settings, self.seed]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

"""Which job or model a server answers with, and the name that programs ask for it by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetrain_proto.v1.answers_pb2 import AskRequest

DEFAULT_ID = "safetrain"


@dataclass(frozen=True, slots=True)
class Served:
    """A job's best adapter, a base model, or (neither given) what `safetrain ask` would choose.

    `model`: a name, a hub's id or an absolute folder.
    """

    job: int = 0
    model: str = ""

    @property
    def id(self) -> str:
        """The `model` of a request that is meant for it."""
        if self.job:
            return f"job-{self.job}"
        return display_name(self.model) or DEFAULT_ID

    def address(self, request: AskRequest) -> AskRequest:
        """Return the request, addressed to this job or model."""
        request.job_id, request.model = self.job, self.model
        return request


def display_name(model: str) -> str:
    """Return a model's name without the path of its folder; a hub's id as it is."""
    return Path(model).name if model.startswith("/") else model

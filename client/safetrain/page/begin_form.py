"""What a person chose at Begin, from the fields of its form: the data's preparation and the job."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetrain import inputs
from safetrain.connection import Daemon
from safetrain.mlx_lm_config import Config
from safetrain.page.forms import checked, share
from safetrain_proto.v1 import jobs_pb2
from safetrain_proto.v1.data_pb2 import PrepareRequest
from safetrain_shared.errors import InvalidInput
from safetrain_shared.evaluations import EvaluationSpec
from safetrain_shared.jobs import JobSpec
from safetrain_shared.settings import FIELDS
from safetrain_shared.wire import spec_to_wire

ROLES = ("question", "answer", "system", "text", "messages")
VALID_SHARE, QUESTIONS_SHARE = 0.1, 0.1  # of the samples
PLACE = "safetrain"  # folder in the user's home for what the page makes
_SET = "set."  # before the name of a setting, as a field
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OPTIONS = ("trust_remote_code", "allow_shorter", "wait", "thorough", "memory_budget")

Fields = Mapping[str, str]


def prepare_request(found: Fields, place: Path) -> PrepareRequest:
    """Return the request to make training files of the chosen source.

    The folder is named by the source's content and by how it is read: equal choices give the same
    files, and others never overwrite them. Raises InvalidInput without data.
    """
    path, digest = found.get("file", ""), found.get("digest", "")
    if not path or not _SHA256.fullmatch(digest):
        raise InvalidInput("page.no_data")
    columns = {role: found[role].strip() for role in ROLES if found.get(role, "").strip()}
    valid = share(found.get("valid_share", ""), VALID_SHARE)
    questions = share(found.get("questions_share", ""), QUESTIONS_SHARE)
    how = repr((digest, sorted(columns.items()), valid, questions))
    folder = f"{_plain_name(path)}-{hashlib.sha256(how.encode()).hexdigest()[:8]}"
    return PrepareRequest(
        paths=[path],
        output=str(place / "data" / folder),
        columns=columns,
        valid_share=valid,
        questions_share=questions,
    )


def job(found: Fields, place: Path) -> jobs_pb2.JobSpec:
    """Return the job, with only the settings that were chosen. Raises InvalidInput."""
    train, valid = found.get("train", ""), found.get("valid", "")
    if not train or not valid:
        raise InvalidInput("page.no_data")
    questions = found.get("questions", "")
    name = found.get("name", "").strip()
    output = found.get("output", "").strip()
    spec = JobSpec(
        model=model(found),
        train=train,
        valid=valid,
        output=inputs.absolute(output) if output else str(place / (name or _plain_name(train))),
        name=name,
        settings=inputs.settings(Config(), [f"{k}={v}" for k, v in settings(found).items()]),
        memory_budget=inputs.memory(found.get("memory_budget", "").strip() or None),
        trust_remote_code=checked(found, "trust_remote_code"),
        allow_shorter=checked(found, "allow_shorter"),
        evaluation=EvaluationSpec(questions=questions) if questions else None,
    )
    return spec_to_wire(spec)


def model(found: Fields) -> str:
    """Return the chosen model: a known name, an absolute folder, or a name on the hub.

    Raises InvalidInput without one.
    """
    chosen = found.get("model", "").strip()
    if chosen in ("", "other"):
        chosen = found.get("other_model", "").strip()
    if not chosen:
        raise InvalidInput("page.no_model")
    return inputs.model(chosen)


def settings(found: Fields) -> dict[str, str]:
    """Return the settings that were typed or accepted, by name."""
    return {
        name: found[f"{_SET}{name}"].strip()
        for name in FIELDS
        if found.get(f"{_SET}{name}", "").strip()
    }


def choices(found: Fields) -> list[tuple[str, str]]:
    """Return (field, value) of all that departs from the recommendation, to show and carry on."""
    chosen = [(name, found[name].strip()) for name in _OPTIONS if found.get(name, "").strip()]
    return chosen + [(f"{_SET}{name}", value) for name, value in settings(found).items()]


def place_of(daemon: Daemon) -> Path:
    """Return the folder for data and trainings on the daemon's machine, in the user's home."""
    return Path(daemon.remote_folder or Path.home()) / PLACE


def free_name(source: str, place: Path) -> str:
    """Return a name for a training of a source that has no folder on this machine yet."""
    name = _plain_name(source)
    taken = (n for n in range(1, 1000) if not (place / _numbered(name, n)).exists())
    return _numbered(name, next(taken, 1000))


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _plain_name(path: str) -> str:
    """Return the file's name without its ending, as letters, digits, dots and dashes."""
    file = Path(path)
    stem = file.parent.name if file.name == "train.jsonl" else file.stem
    plain = re.sub(r"[^\w.-]+", "-", stem).strip("-.")
    return os.fsdecode(os.fsencode(plain)[:60]) or "training"

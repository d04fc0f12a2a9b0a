"""Homes that earlier versions made open, with their jobs, their events and their settings.

One archive for each format that landed on main, made by that version with `make_home.py`. Formats
change when `FORMAT` of a definition or the database's version does; add an archive then.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from safetrain_shared.errors import Incompatible
from safetrain_shared.events import Planned
from safetrain_shared.jobs import JobState, Plan
from safetrain_shared.settings import TrainingSettings
from safetraind.storage import documents, training_state
from safetraind.storage.job_document import JobDocument
from safetraind.storage.job_store import JobStore
from tests.harness import DaemonProcess

HOMES = sorted(Path(__file__).parent.glob("*.tar.gz"))
STATES = {1: JobState.SUCCEEDED, 2: JobState.PAUSED, 3: JobState.QUEUED}
# The defaults of the version that made each home: a job that was submitted keeps them.
DEFAULTS: dict[str, dict[str, object]] = {
    "0ec674a": {
        "gradient_accumulation": 1,
        "learning_rate": 2e-4,
        "warmup_steps": 50,
        "eval_steps": 100,
        "seed": 0,
        "schedule": "cosine",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "fine_tune_type": "lora",
        "lora_rank": 8,
        "lora_scale": 20.0,
        "lora_dropout": 0.0,
        "mask_prompt": True,
        "packing": False,
        "keep_checkpoints": 3,
        "early_stopping": 0,
        "eval_samples": 0,
    }
}


@pytest.fixture(params=HOMES, ids=lambda path: path.name.removesuffix(".tar.gz"))
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the home and of what lay in the output folders."""
    with tarfile.open(request.param) as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / "home").chmod(0o700)
    return tmp_path


def test_the_jobs_of_an_old_home_are_there(opened: Path) -> None:
    daemon = DaemonProcess(opened / "home")
    try:
        daemon.start()
        assert {number: daemon.state(number) for number in STATES} == STATES
        done, paused, waiting = (daemon.job(number) for number in STATES)
        assert (done.spec.name, paused.spec.name, waiting.spec.name) == (
            "done",
            "paused",
            "waiting",
        )
        assert done.step == done.total_steps > 0
        assert 0 < paused.step < paused.total_steps
        assert waiting.after == paused.id
        events = list(daemon.watch(done.id))
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert all(event.body is not None for event in events)
        plan = next(event.body.plan for event in events if isinstance(event.body, Planned))
        assert plan.settings.lora_targets == ("self_attn.q_proj",)
        assert plan.settings.batch_size == 2
    finally:
        daemon.end()


def test_a_job_of_an_old_home_keeps_the_defaults_of_its_version(
    opened: Path, request: pytest.FixtureRequest
) -> None:
    version = request.node.callspec.id
    for record in JobStore(opened / "home" / "jobs.db").all():
        complete = record.spec.complete_settings
        assert {name: getattr(complete, name) for name in DEFAULTS[version]} == DEFAULTS[version]


def test_a_training_of_an_old_home_is_known_again(opened: Path) -> None:
    """The fingerprint that the old version wrote is the one that is computed now."""
    records = {r.job.id: r for r in JobStore(opened / "home" / "jobs.db").all()}
    for number, name in ((1, "done"), (2, "paused")):
        state = training_state.read(opened / name)
        assert state is not None
        assert state.fingerprint == records[number].document.fingerprint
        assert state.plan == documents.read(opened / f"home/runs/{number}/plan.json", Plan)


def test_a_field_of_a_newer_version_survives_a_rewrite(opened: Path) -> None:
    plan = opened / "home" / "runs" / "1" / "plan.json"
    content = json.loads(plan.read_text())
    content["of_a_newer"] = {"a": 1}
    content["settings"]["also_newer"] = 2
    plan.write_text(json.dumps(content))
    known = documents.read(plan, Plan)
    assert known is not None
    documents.write(plan, known)
    rewritten = json.loads(plan.read_text())
    assert rewritten["of_a_newer"] == {"a": 1}
    assert rewritten["settings"]["also_newer"] == 2
    assert rewritten["format"] == Plan.FORMAT
    assert set(rewritten["settings"]) >= set(TrainingSettings.__dataclass_fields__)


@pytest.mark.parametrize("number", [99, "other"])
def test_a_format_that_is_not_known_is_refused_with_a_sentence(
    opened: Path, number: object
) -> None:
    spec = opened / "home" / "runs" / "1" / "spec.json"
    spec.write_text(json.dumps(json.loads(spec.read_text()) | {"format": number}))
    with pytest.raises(Incompatible) as caught:
        documents.read(spec, JobDocument)
    assert str(spec) in str(caught.value)
    assert "Upgrade safetrain" in str(caught.value)

"""What each topic says about a history, and that each trouble has a fix."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from safetrain_shared.events import Evaluated, Event, Notice, StateChanged, StepDone
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobSpec, JobState, Plan
from safetrain_shared.messages import SENTENCES, say, sentence
from safetrain_shared.settings import TrainingSettings
from safetraind.diagnosis import TOPICS, examine
from safetraind.diagnosis.diagnosis_facts import Facts, JobHistory
from safetraind.diagnosis.gather import job_history
from safetraind.host import HostFacts, Pressure
from safetraind.models.model_config import ModelFacts, ModelShape
from safetraind.planner.facts import Disk
from safetraind.planner.facts import Facts as Machine
from safetraind.scheduler.state import Job
from safetraind.worker_messages.probe_messages import Device

GB = 1 << 30
SPEC = JobSpec("/models/m", "/data/t.jsonl", "/data/v.jsonl", "/out")
PLAN = Plan(
    TrainingSettings(),
    "/models/m",
    memory_budget=8 * GB,
    measured_peak=4 * GB,
    tokens_per_second=100,
)
MAC = HostFacts(
    system="Darwin",
    system_version="15.1",
    architecture="arm64",
    chip="Apple M2",
    memory_total=16 * GB,
    memory_free=9 * GB,
    pressure=Pressure.NORMAL,
    cpu_cores=8,
)
MACHINE = Machine(
    host=MAC,
    disk=Disk("/out", 100 * GB, 100 * GB, True),
    model=ModelFacts(
        "m",
        path="/models/m",
        bytes=4 * GB,
        model_type="llama",
        known=True,
        bits=4,
        shape=ModelShape(32, 4096, 14336, 32, 8, 128, 32768, 4 * GB, 28 * GB, 2, ()),
    ),
    python="3.12.1",
    device=Device("metal", name="Apple M2"),
)


def evaluated(*losses: float) -> tuple[Evaluated, ...]:
    """Evaluations of these losses, the first of them before the first step."""
    return tuple(
        Evaluated(9 * n, n, 9, loss, 4, n > 0 and loss < min(losses[1:n], default=9.0))
        for n, loss in enumerate(losses)
    )


FALLING = tuple(3.0 * 0.95**n for n in range(40))
WELL = JobHistory(
    1,
    JobState.SUCCEEDED,
    SPEC,
    PLAN,
    losses=FALLING,
    rates=(2e-4,) * 40,
    evaluations=evaluated(2.0, 1.0, 0.9),
    speeds=(100.0,) * 40,
    peak=6 * GB,
)
WELL = dataclasses.replace(WELL, peak=4 * GB + (GB >> 3))


def codes(section: str, machine: dict[str, Any] | None = None, **history: Any) -> list[str]:
    facts = Facts(
        SPEC,
        dataclasses.replace(MACHINE, **(machine or {})),
        dataclasses.replace(WELL, **history),
    )
    return [finding.code for finding in examine(facts) if finding.section == section]


def test_a_good_training_on_a_good_machine_is_all_well() -> None:
    found = examine(Facts(SPEC, MACHINE, WELL, versions={"safetrain": "1"}))
    assert [f.code for f in found] == [
        "diagnosis.memory_fits",
        "diagnosis.model_here",
        "diagnosis.speed_steady",
        "diagnosis.loss_falls",
        "diagnosis.loss_validated",
        "diagnosis.gpu_device",
        "diagnosis.service_well",
    ]
    assert {f.status for f in found} == {Status.PASSED}


def test_every_topic_says_something_where_nothing_has_run() -> None:
    found = examine(Facts(SPEC, MACHINE))
    assert {f.section for f in found} == {name for name, _ in TOPICS}


OOM = Finding("job.out_of_memory", Status.WARNING)


@pytest.mark.parametrize(
    ("history", "code"),
    [
        ({"troubles": (OOM, OOM)}, "diagnosis.memory_ran_out"),
        ({"troubles": (OOM,), "state": JobState.FAILED}, "diagnosis.memory_failed"),
        ({"cause": Finding("plan.refused_layers", Status.FAILED)}, "plan.refused_layers"),
        ({"peak": 5 * GB}, "diagnosis.memory_above_plan"),
        ({"peak": 0}, "diagnosis.memory_unknown"),
    ],
)
def test_out_of_memory(history: dict[str, Any], code: str) -> None:
    assert codes("memory", **history) == [code]


def test_memory_pressure_is_told_beside_the_job() -> None:
    host = dataclasses.replace(MAC, pressure=Pressure.CRITICAL)
    assert codes("memory", {"host": host})[1:] == ["hardware.pressure"]


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (ModelFacts("org/m"), "diagnosis.model_to_download"),
        (ModelFacts("m", "/m", missing=("model.safetensors",)), "model.incomplete"),
        (ModelFacts("m", "/m", model_type="odd"), "model.unknown_architecture"),
    ],
)
def test_model_not_found(model: ModelFacts, code: str) -> None:
    assert codes("model", {"model": model}) == [code]


@pytest.mark.parametrize(
    ("history", "code"),
    [
        ({"speeds": (100.0,) * 20 + (40.0,) * 20}, "diagnosis.speed_dropped"),
        ({"speeds": (50.0,) * 20}, "diagnosis.speed_below_plan"),
        ({"speeds": (50.0,) * 3}, "diagnosis.speed_unknown"),
    ],
)
def test_slow_training(history: dict[str, Any], code: str) -> None:
    assert codes("speed", **history) == [code]


def test_means_left_unused() -> None:
    assert "diagnosis.speed_room" in codes("speed", peak=2 * GB)
    assert "diagnosis.speed_quantized_on_cpu" in codes("speed", {"device": Device("cpu")})
    host = dataclasses.replace(MAC, low_power=True)
    assert codes("speed", {"host": host})[1:] == ["hardware.low_power"]


@pytest.mark.parametrize(
    ("history", "code"),
    [
        ({"losses": (2.0,) * 40}, "diagnosis.loss_flat"),
        ({"losses": (*FALLING, 0.6, 0.8, 1.0, 1.2, 1.2, 1.2)}, "diagnosis.loss_diverged"),
        ({"losses": (3.0,) * 10 + (2.0, 0.8) * 20}, "diagnosis.loss_unsteady"),
        ({"losses": FALLING[:4]}, "diagnosis.loss_too_early"),
        (
            {"troubles": (Finding("train.non_finite_weights", args={"step": 3, "rate": 0.1}),)},
            "train.non_finite_weights",
        ),
    ],
)
def test_loss(history: dict[str, Any], code: str) -> None:
    assert codes("loss", **history)[0] == code


@pytest.mark.parametrize(
    ("losses", "advised"),
    [
        ((2.0,) * 40, "learning_rate=0.00004)"),
        ((*FALLING, 0.6, 0.8, 1.0, 1.2, 1.2, 1.2), "learning_rate=0.000005)"),
        ((3.0,) * 10 + (2.0, 0.8) * 20, "learning_rate=0.000005)"),
    ],
)
def test_the_learning_rate_that_is_advised_goes_by_the_one_that_was_used(
    losses: tuple[float, ...], advised: str
) -> None:
    facts = Facts(SPEC, MACHINE, dataclasses.replace(WELL, losses=losses, rates=(2e-5,) * 40))
    found = next(one for one in examine(facts) if one.section == "loss")
    assert advised in sentence(f"{found.code}.fix", found.args)


def test_overfitting_is_told_by_the_validation_loss() -> None:
    assert codes("loss", evaluations=evaluated(2.0, 1.0, 1.5)) == [
        "diagnosis.loss_falls",
        "train.overfits",
    ]


def test_a_mac_that_computes_on_the_cpu_is_told_why() -> None:
    assert codes("gpu", {"device": Device("cpu")})[1:] == ["gpu.cpu_on_mac"]
    rosetta = dataclasses.replace(MAC, rosetta=True, architecture="x86_64")
    assert "hardware.rosetta" in codes("gpu", {"device": Device("cpu"), "host": rosetta})
    broken = Device("metal", works=False, reason="no")
    assert "gpu.broken" in codes("gpu", {"device": broken})
    assert codes("gpu", {"device": None, "busy": True}) == ["diagnosis.gpu_at_work"]


def test_each_kind_of_interruption_is_told_once_with_its_count() -> None:
    restarted = Finding("job.machine_restarted", Status.WARNING)
    killed = Finding("job.worker_killed", Status.WARNING, args={"signal": 9})
    found = codes("service", troubles=(restarted, killed, restarted, OOM))
    assert found == ["job.machine_restarted", "diagnosis.again", "job.worker_killed"]


@pytest.mark.parametrize(
    ("at_login", "code"), [(True, "diagnosis.after_login"), (False, "diagnosis.not_at_login")]
)
def test_on_a_mac_it_is_said_what_a_restart_waits_for(at_login: bool, code: str) -> None:
    def told(host: HostFacts, state: JobState, waiting: int = 0) -> list[str]:
        machine, history = replace(MACHINE, host=host), replace(WELL, state=state)
        facts = Facts(SPEC, machine, history, waiting=waiting, at_login=at_login)
        return [f.code for f in examine(facts) if f.section == "service"]

    replace = dataclasses.replace
    assert told(MAC, JobState.RUNNING) == ["diagnosis.service_well", code]
    assert told(MAC, JobState.SUCCEEDED, waiting=1) == ["diagnosis.service_well", code]
    assert told(MAC, JobState.SUCCEEDED) == ["diagnosis.service_well"]
    linux = HostFacts("Linux", memory_total=16 * GB, memory_free=9 * GB)
    assert code not in told(linux, JobState.RUNNING)


def test_a_trouble_of_ours_has_a_fix_and_good_news_has_none() -> None:
    troubles = [c for c in SENTENCES if c.startswith("diagnosis.") and not c.endswith(".fix")]
    good = {
        "diagnosis.memory_fits", "diagnosis.memory_unknown", "diagnosis.model_here",
        "diagnosis.speed_unknown", "diagnosis.speed_steady", "diagnosis.loss_too_early",
        "diagnosis.loss_falls", "diagnosis.loss_validated", "diagnosis.gpu_device",
        "diagnosis.gpu_at_work", "diagnosis.again", "diagnosis.jobs_failed",
        "diagnosis.service_well", "diagnosis.not_judged", "diagnosis.bundle_taken",
        "diagnosis.after_login",
    }  # fmt: skip
    assert {c for c in troubles if f"{c}.fix" not in SENTENCES} == good


def test_a_history_counts_a_step_once_as_it_came_last() -> None:
    def step(number: int, loss: float) -> StepDone:
        return StepDone(number, 0, number, 9, loss, 1e-4, 1.0, 1, 50.0, number * GB, 1, 1.0)

    bodies = [
        step(1, 3.0),
        step(2, 2.9),
        StateChanged(JobState.INTERRUPTED, OOM),
        Notice(Finding("backoff.micro_batch")),
        step(2, 2.8),
        Evaluated(2, 0, 2, 2.5, 4, True),
        StateChanged(JobState.PAUSED, Finding("job.paused_by_user")),
    ]
    events = [Event(n, 1, 0.0, "", body) for n, body in enumerate(bodies, 1)]
    history = job_history(events, Job(1, JobState.PAUSED), SPEC)
    assert history.losses == (3.0, 2.8)
    assert [e.loss for e in history.evaluations] == [2.5]
    assert history.troubles == (OOM,)
    assert history.peak == 2 * GB


def test_sentences_name_only_what_their_findings_carry() -> None:
    histories = [
        dataclasses.replace(WELL, troubles=(OOM,)),
        dataclasses.replace(WELL, losses=(2.0,) * 40, peak=9 * GB),
        dataclasses.replace(WELL, losses=(3.0,) * 10 + (2.0, 0.8) * 20, speeds=(9.0,) * 20),
        dataclasses.replace(WELL, evaluations=evaluated(1.0, 2.0), peak=GB),
    ]
    for history in histories:
        for finding in examine(Facts(SPEC, MACHINE, history, versions={"safetrain": "1"})):
            fix = SENTENCES.get(f"{finding.code}.fix", "")
            said = [say(finding), say(dataclasses.replace(finding, code=f"{finding.code}.fix"))]
            assert "?" not in (said[0] + (said[1] if fix else "")), finding

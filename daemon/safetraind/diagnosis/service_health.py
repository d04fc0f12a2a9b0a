"""The service itself: interrupted and failed jobs, disk space, folders closed to services."""

from __future__ import annotations

from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import LIVE
from safetraind.diagnosis.diagnosis_facts import Facts, checked
from safetraind.diagnosis.loss_curve import NOT_FINITE
from safetraind.diagnosis.out_of_memory import OUT_OF_MEMORY
from safetraind.preflight.check import info, passed, warning

_OTHER_TOPICS = (*OUT_OF_MEMORY, *NOT_FINITE)
_INTENDED = (
    *("job.paused_by_user", "job.cancelled_by_user", "train.paused", "train.stopped"),
    "train.segment",
)


def judge(facts: Facts) -> list[Finding]:
    """Return findings on what interrupted the job, and on what may interrupt the next one."""
    found = _interruptions(facts)
    if facts.failed:
        found.append(info("diagnosis.jobs_failed", count=facts.failed))
    if facts.set_aside:
        found.append(warning("diagnosis.set_aside", count=facts.set_aside))
    if facts.agent_python_gone:
        found.append(warning("daemon.agent_python_gone", python=facts.agent_python_gone))
    found += checked(("output", "disk_space", "folders"), facts)
    found = found or [passed("diagnosis.service_well", **_counted(facts))]
    return found + _after_a_restart(facts)


def _after_a_restart(facts: Facts) -> list[Finding]:
    """Return a finding on a Mac's restart: nothing starts before the user logs in."""
    live = facts.waiting > 0 or (facts.history is not None and facts.history.state in LIVE)
    if not facts.machine.host.is_mac or not live:
        return []
    if facts.at_login:
        return [info("diagnosis.after_login")]
    return [warning("diagnosis.not_at_login")]


def _interruptions(facts: Facts) -> list[Finding]:
    """Return one finding for each kind of interruption, with its number of occurrences."""
    if facts.history is None:
        return []
    own = [t for t in facts.history.troubles if t.code not in (*_OTHER_TOPICS, *_INTENDED)]
    counts: dict[str, int] = {}
    for trouble in own:
        counts[trouble.code] = counts.get(trouble.code, 0) + 1
    newest = {trouble.code: trouble for trouble in own}
    found = []
    for code, trouble in newest.items():
        found.append(Finding(code, Status.WARNING, args=trouble.args))
        if counts[code] > 1:
            found.append(warning("diagnosis.again", count=counts[code]))
    return found


def _counted(facts: Facts) -> dict[str, str]:
    return {"version": facts.versions.get("safetrain", "?")}

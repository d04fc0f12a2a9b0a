"""The service itself: interrupted and failed jobs, room on the disk, folders that may be closed."""

from __future__ import annotations

from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import LIVE
from safetraind.diagnosis.diagnosis_facts import Facts, checked
from safetraind.diagnosis.loss_curve import NOT_FINITE
from safetraind.diagnosis.out_of_memory import DEATHS
from safetraind.preflight.check import info, passed, warning

_TOLD_ELSEWHERE = (*DEATHS, *NOT_FINITE)
_USERS_WISH = (
    *("job.paused_by_user", "job.cancelled_by_user", "train.paused", "train.stopped"),
    "train.segment",
)


def judge(facts: Facts) -> list[Finding]:
    """What interrupted the job, and what may interrupt the next one."""
    found = _interruptions(facts)
    if facts.failed:
        found.append(info("diagnosis.jobs_failed", count=facts.failed))
    if facts.agent_python_gone:
        found.append(warning("daemon.agent_python_gone", python=facts.agent_python_gone))
    found += checked(("output", "disk_space", "folders"), facts)
    found = found or [passed("diagnosis.service_well", **_counted(facts))]
    return found + _after_a_restart(facts)


def _after_a_restart(facts: Facts) -> list[Finding]:
    """What starts at login starts only then: until somebody logs in, a Mac that restarted waits."""
    live = facts.waiting > 0 or (facts.story is not None and facts.story.state in LIVE)
    if not facts.machine.host.is_mac or not live:
        return []
    if facts.at_login:
        return [info("diagnosis.after_login")]
    return [warning("diagnosis.not_at_login")]


def _interruptions(facts: Facts) -> list[Finding]:
    """Each kind of trouble once, with how often it came."""
    if facts.story is None:
        return []
    own = [t for t in facts.story.troubles if t.code not in (*_TOLD_ELSEWHERE, *_USERS_WISH)]
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

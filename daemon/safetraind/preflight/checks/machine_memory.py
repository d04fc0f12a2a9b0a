"""The memory of the machine, and the part of it that is available now."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.budget import available
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, failed, info, passed, warning

_LEAST = 1 << 30


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Judge the available memory, and report a control group's limit.

    Less than 1 GB is too little for most models. Where the user asked for less, the planner judges.
    """
    host, budget, given = facts.host, spec.memory_budget, available(spec, facts)
    args = {"available": host.memory_available, "total": host.memory_total}
    verdict = passed("hardware.memory", **args)
    if max(host.memory_available, given) < _LEAST and not 0 < budget < _LEAST:
        verdict = failed("hardware.memory_short", least=_LEAST, **args)
    findings = [verdict]
    if host.memory_limit:
        findings.append(info("hardware.memory_limit", limit=host.memory_limit))
    if budget > given:
        findings.append(warning("hardware.budget_above", budget=budget, available=given))
    if given > host.memory_available:
        args = {"budget": given, "available": host.memory_available}
        args["beyond"] = given - host.memory_available
        findings.append(warning("hardware.budget_beyond", **args))
    elif 0 < budget <= given:
        findings.append(info("hardware.memory_budget", budget=budget))
    return findings


CHECK = Check("memory", "hardware", judge)

"""Whether each package can really be imported, in a version that the project supports."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetrain_shared.packages import PACKAGES, as_numbers
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, failed, passed, warning


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Judge the packages. One that cannot be imported blocks; a version outside the tried range is
    a warning.
    """
    findings = []
    for package in PACKAGES:
        found = facts.packages.get(package.module)
        if found is None:
            continue
        if not found.version:
            args = {"name": package.name, "reason": found.reason}
            findings.append(failed("dependencies.missing", **args))
        elif package.low <= as_numbers(found.version) < package.high:
            args = {"name": package.name, "version": found.version}
            findings.append(passed("dependencies.found", **args))
        else:
            args = {"name": package.name, "version": found.version, "supported": package.range}
            findings.append(warning("dependencies.untried", **args))
    return findings


CHECK = Check("packages", "dependencies", judge)

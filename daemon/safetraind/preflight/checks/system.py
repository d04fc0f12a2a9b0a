"""Whether the operating system is recent enough for MLX."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, failed, passed

# The wheels of mlx 0.32 are built for macOS 14 and later.
_LEAST_MACOS = 14


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Judge the system's version. Only macOS has a minimum here; elsewhere pip has already
    decided.
    """
    host = facts.host
    if not host.is_mac or not host.system_version:
        return []
    major = host.system_version.split(".", maxsplit=1)[0]
    if major.isdigit() and int(major) < _LEAST_MACOS:
        return [failed("hardware.old_macos", version=host.system_version, least=_LEAST_MACOS)]
    return [passed("hardware.macos", version=host.system_version)]


CHECK = Check("system", "hardware", judge)

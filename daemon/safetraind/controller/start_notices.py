"""Notices at the start of a training: battery, lid, restart of the machine."""

from __future__ import annotations

from safetrain_shared.findings import Finding, Status
from safetrain_shared.settings import TrainingSettings
from safetraind.host import HostFacts


def start_notices(
    machine: HostFacts, settings: TrainingSettings, attempt: int, *, at_login: bool
) -> list[Finding]:
    """Return notices on an empty battery, a closed lid, and a service that does not start at login.

    The last is for a training in segments, which a restart of the machine would end. `at_login`:
    the service starts at login. Idle sleep is prevented; a closed lid is not. Segments after the
    first repeat nothing.
    """
    segmented = settings.segment_minutes > 0
    if segmented and attempt > 1:
        return []
    found = []
    if segmented and not at_login:
        found.append(Finding("job.not_at_login", Status.WARNING))
    if not machine.is_mac or machine.on_battery is None:  # without a battery there is no lid
        return found
    if machine.on_battery:
        args = {"share": machine.battery_share}
        found.append(Finding("hardware.battery", Status.WARNING, args=args))
    return [*found, Finding("job.lid", Status.INFO)]

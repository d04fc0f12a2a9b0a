"""Bytes that this job will write, against those that are free."""

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, failed, failed_softly, passed, warning
from safetraind.preflight.disk_usage import bytes_to_write

_TIGHT = 1.5


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Judge the free space.

    Too little for the checkpoints does not block, as the user's document has it: the run would wait
    in the middle. Too little for the download blocks.
    """
    disk, download = facts.disk, 0 if facts.model.path else facts.model.download
    needed = bytes_to_write(spec, facts)
    args = {"free": disk.free, "needed": needed}
    if download and disk.models_free < download + (needed if disk.same_disk else 0):
        return [failed("disk.no_room_for_model", free=disk.models_free, needed=download)]
    if disk.free < needed:
        return [failed_softly("disk.short", **args)]
    if disk.free < _TIGHT * needed:
        return [warning("disk.tight", **args)]
    return [passed("disk.enough", **args)]


CHECK = Check("disk_space", "disk", judge, needs=("output",))

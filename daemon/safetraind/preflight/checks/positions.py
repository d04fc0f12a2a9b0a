"""Whether the samples are no longer than the sequences that the model was made for."""

from pathlib import Path

from safetrain_shared.errors import ArgValue
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, failed, warning
from safetraind.worker_messages.inspect_messages import DataFile


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Judge the lengths. Beyond its positions a model with a vector for each has none, and others
    extrapolate.
    """
    positions = facts.model.positions
    if facts.data is None or not positions:
        return []
    files = [file for file in (facts.data.train, facts.data.valid) if file is not None]
    say = failed if facts.model.learned_positions else warning
    found = []
    for file in files:
        if (longest := _longest(spec, file)) > positions:
            assert file.lengths is not None
            args: dict[str, ArgValue] = {
                "name": Path(file.path).name,
                "count": file.lengths.cut(positions),
            }
            found.append(say("data.beyond_positions", positions=positions, longest=longest, **args))
    return found


def _longest(spec: JobSpec, file: DataFile) -> int:
    """Return the tokens of the longest sequence that is trained on; 0 where nothing was counted."""
    if file.lengths is None or not file.lengths.counted:
        return 0
    chosen = spec.settings.get("max_seq_length")
    longest = file.lengths.longest
    return min(longest, chosen) if isinstance(chosen, int) else longest


CHECK = Check("positions", "data", judge, needs=("lengths",))

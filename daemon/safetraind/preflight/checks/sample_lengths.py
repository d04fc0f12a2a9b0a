"""The lengths of the samples, and the number of them that the usual sequence lengths would cut."""

from pathlib import Path

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, failed, info, warning
from safetraind.worker_messages.inspect_messages import NEVER, Lengths

_COMMON = (128, 256, 512, 1024, 2048)


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Return a finding on the lengths, and one for each usual length that cuts samples."""
    file = facts.data.train if facts.data else None
    if file is None or file.lengths is None or not file.lengths.counted:
        return []
    lengths = file.lengths
    findings = [info("data.lengths", median=_median(lengths), longest=lengths.longest)]
    if lengths.scale > 1:
        findings.append(info("data.lengths_drawn", counted=lengths.counted, samples=file.samples))
    for length in _COMMON:
        cut = lengths.cut(length)
        if not cut:
            break
        args = {"length": length, "cut": cut, "lost": lengths.left_out(length)}
        findings.append(info("data.would_cut", **args))
    chosen = spec.settings.get("max_seq_length")
    name, first = Path(file.path).name, min(begin for begin, _ in lengths.answers)
    if first >= NEVER:
        return [*findings, failed("data.none_learns", name=name)]
    if isinstance(chosen, int) and chosen <= first:
        return [*findings, failed("data.all_lose", name=name, length=chosen, first=first)]
    if isinstance(chosen, int) and (lost := lengths.left_out(chosen)):
        findings.append(warning("data.would_lose", length=chosen, count=lost))
    return findings


def _median(lengths: Lengths) -> int:
    half, seen = lengths.counted / 2, 0
    for tokens, count in lengths.tokens:
        seen += count
        if seen >= half:
            return tokens
    return lengths.longest


CHECK = Check("lengths", "data", judge, needs=("data_files",))

"""Whether both files can be read and hold samples."""

from pathlib import Path

from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts
from safetraind.preflight.check import Check, failed, passed
from safetraind.worker_messages.inspect_messages import DataFile


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Judge the files. One that cannot be read was reported by the inspection itself."""
    data = facts.data
    if data is None:
        end = facts.inspection_end
        return [failed("data.not_read") if end is None else failed(end.code, **end.args)]
    findings = [p for p in data.problems if p.blocks and p.status is Status.FAILED]
    for code, file in (("data.train", data.train), ("data.valid", data.valid)):
        if file is not None:
            findings.append(_judge_file(code, file, data.problems))
    if None in (data.train, data.valid) and not any(f.status is Status.FAILED for f in findings):
        findings.append(failed("data.not_read"))
    return findings


def _judge_file(code: str, file: DataFile, problems: tuple[Finding, ...]) -> Finding:
    for problem in problems:  # it says what to do, which "no samples" does not
        if problem.code == "data.json_document" and problem.args.get("path") == file.path:
            return failed(problem.code, **problem.args)
    if not file.samples:
        return failed("data.no_samples", path=file.path)
    return passed(code, name=Path(file.path).name, samples=file.samples, format=file.format)


CHECK = Check("data_files", "data", judge)

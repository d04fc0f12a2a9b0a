"""Lines that are no samples, and lines that are samples with something odd about them."""

from pathlib import Path

from safetrain_shared.errors import ArgValue
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Data, Facts
from safetraind.preflight.check import Check, failed, info, passed, warning
from safetraind.worker_messages.inspect_messages import DataFile

# These have checks of their own.
_ELSEWHERE = ("data.duplicate", "data.leak", "data.near_leak")


def judge(spec: JobSpec, facts: Facts) -> list[Finding]:
    """Count the problems by kind, with the first line of each file. `safetrain validate` lists all
    of them.
    """
    data = facts.data
    if data is None:
        return []
    findings, infos = list[Finding](), list[Finding]()
    for file in (data.train, data.valid):
        if file is not None:
            findings += _totals(file, data.problems)
            findings += _template(file, data) or _rendering(file)
            if file.unlearned:
                name = Path(file.path).name
                infos.append(info("data.unlearned_in", name=name, count=file.unlearned))
    if data.tokenizer_reason:
        findings.append(failed("data.no_tokenizer", reason=data.tokenizer_reason))
    return [*(findings or [passed("data.good")]), *infos]


def _totals(file: DataFile, problems: tuple[Finding, ...]) -> list[Finding]:
    findings: list[Finding] = []
    args: dict[str, ArgValue] = {"name": Path(file.path).name, "path": file.path}
    odd = file.warnings - sum(file.counts.get(code, 0) for code in _ELSEWHERE)
    if file.errors:
        line = _first_line(file, problems, Status.FAILED)
        findings.append(failed("data.errors", count=file.errors, line=line, **args))
    if odd > 0:
        line = _first_line(file, problems, Status.WARNING)
        findings.append(warning("data.warnings", count=odd, line=line, **args))
    return findings


def _template(file: DataFile, data: Data) -> list[Finding]:
    """Return the finding that the model has no chat template for the file's samples."""
    if file.format == "text" or file.lengths is None:
        return []
    name = Path(file.path).name
    if not data.chat_template:
        return [failed("data.no_chat_template", name=name)]
    if data.templates and "default" not in data.templates and file.lengths.failed:
        return [failed("data.no_default_template", names=", ".join(data.templates))]
    return []


def _rendering(file: DataFile) -> list[Finding]:
    """Return findings on samples that the template refuses, or renders differently from their
    file.
    """
    lengths, findings = file.lengths, list[Finding]()
    if lengths is None:
        return []
    args: dict[str, ArgValue] = {"name": Path(file.path).name, "path": file.path}
    if lengths.failed:
        where = {**args, "count": lengths.failed, "line": lengths.line}
        findings.append(failed("data.template", **where, reason=lengths.reason))
    for problem in lengths.problems:
        say = failed if problem.status is Status.FAILED else warning
        where = {**problem.args, **args, "line": problem.line, "count": problem.count}
        findings.append(say("data.rendered_otherwise", **where, cause=problem.code))
    return findings


def _first_line(file: DataFile, problems: tuple[Finding, ...], status: Status) -> ArgValue:
    lines = (
        problem.args["line"]
        for problem in problems
        if problem.args.get("path") == file.path
        and problem.status is status
        and problem.code not in _ELSEWHERE
    )
    return next(lines, None)


CHECK = Check("problems", "data", judge, needs=("data_files",))

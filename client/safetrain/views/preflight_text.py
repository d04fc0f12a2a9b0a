"""A preflight as text, in the layout of the user's document, line by line as events arrive."""

from __future__ import annotations

from collections.abc import Iterator

from safetrain.views.job import short_path
from safetrain.views.labels import SECTIONS, sign, word
from safetrain_proto.v1 import findings_pb2
from safetrain_proto.v1.preflight_pb2 import PreflightEvent, PreflightSummary, Recommendation
from safetrain_shared import findings, i18n
from safetrain_shared.findings import Finding, Status
from safetrain_shared.i18n import marked, translate
from safetrain_shared.i18n import translate as _
from safetrain_shared.jobs import Plan
from safetrain_shared.messages import say
from safetrain_shared.settings import FIELDS
from safetrain_shared.wire import finding_from_wire, plan_from_wire

_RULE = "=" * 80
_ALWAYS = ("batch_size", "gradient_accumulation", "max_seq_length", "learning_rate", "num_epochs")
TITLES = {
    "hardware": marked("HARDWARE CHECK"),
    "dependencies": marked("DEPENDENCIES CHECK"),
    "gpu": marked("GPU CHECK"),
    "data": marked("DATA CHECK"),
    "model": marked("MODEL CHECK"),
    "disk": marked("DISK SPACE CHECK"),
    "recommendation": marked("RECOMMENDED CONFIGURATION"),
}
_HARMLESS = marked("not critical")


class PreflightText:
    """Formats the events of one preflight; collects the findings for its summary."""

    def __init__(self) -> None:
        self._noted: list[Finding] = []

    def opening(self) -> list[str]:
        """Return the title."""
        return _framed(_("PREFLIGHT CHECK - LLM TRAINING"))

    def lines(self, event: PreflightEvent) -> list[str]:
        """Return the lines of one event; [] for progress."""
        match event.WhichOneof("body"):
            case "section":
                return _section(event.section.section)
            case "finding":
                return [self._finding(event.finding)]
            case "recommendation":
                return recommendation(event.recommendation)
            case "summary":
                return self._summary(event.summary)
        return []

    def _finding(self, message: findings_pb2.Finding) -> str:
        finding = finding_from_wire(message)
        self._noted.append(finding)
        text = say(finding, fallback=message.text)
        harmless = f" ({translate(_HARMLESS)})" if _is_harmless(finding) else ""
        return f"  {sign(finding.status)} {text}{harmless}"

    def _summary(self, summary: PreflightSummary) -> list[str]:
        failed = _("Failed: {count}").format(count=summary.failed) + self._named(Status.FAILED)
        warned = _("Warnings: {count}").format(count=summary.warnings)
        lines = [
            "",
            *_framed(_("SUMMARY OF THE PREFLIGHT CHECK")),
            f"  {sign(Status.PASSED)} " + _("Passed: {count}").format(count=summary.passed),
            f"  {sign(Status.FAILED)} {failed}",
            f"  {sign(Status.WARNING)} {warned}{self._named(Status.WARNING)}",
            "",
        ]
        saved = [
            (_("Report saved: {path}"), summary.report_path),
            (_("Config saved: {path}"), summary.config_path),
        ]
        lines += [
            f"{sign(Status.PASSED)} {text.format(path=short_path(path))}"
            for text, path in saved
            if path
        ]
        if summary.blocked:
            lines.append(f"{sign(Status.FAILED)} " + _("Nothing can be trained until ✗ is mended."))
        return lines

    def _named(self, status: Status) -> str:
        """Return the sections of the findings of this status: (disk space - not critical)."""
        names = dict.fromkeys(_place(f) for f in self._noted if f.status is status)
        return f" ({', '.join(names)})" if names else ""


def recommendation(message: Recommendation) -> list[str]:
    """Return the recommended settings, their reasons, and the expected duration."""
    plan = plan_from_wire(message.plan)
    lines = ["  " + _("RECOMMENDED CONFIGURATION:"), *_settings(plan), ""]
    reasons = [
        say(finding, fallback=sent.text)
        for finding, sent in zip(plan.reasons, message.plan.reasons, strict=True)
    ]
    if reasons:
        lines.append("  " + _("REASON: {text}").format(text=reasons[0]))
        lines += [f"  {text}" for text in reasons[1:]]
    lines += [f"  {text}" for text in expected(plan)]
    return lines


def _section(name: str) -> list[str]:
    number = findings.SECTIONS.index(name) + 1 if name in findings.SECTIONS else "·"
    return ["", f">>> {number}. {translate(TITLES.get(name, name.upper()))}"]


def _settings(plan: Plan) -> Iterator[str]:
    """Yield the five settings of the document, and others that differ from their default."""
    for name in FIELDS:
        if is_chosen(plan, name):
            yield f"  • {name}: {value_text(getattr(plan.settings, name))}"


def is_chosen(plan: Plan, name: str) -> bool:
    """Whether a setting is one of the document's five, or differs from its default."""
    return name in _ALWAYS or getattr(plan.settings, name) != FIELDS[name].default


def value_text(value: object) -> str:
    """Format a setting as in a configuration file, in every language alike."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return i18n.number(value, "en")
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def expected(plan: Plan) -> Iterator[str]:
    """Yield how long the training is expected to take, where that is known."""
    if plan.expected_seconds:
        text = _("Duration: about {time} for {steps:int} {steps:|step|steps}")
        args = {"time": i18n.duration(plan.duration), "steps": plan.total_steps}
        yield i18n.format_text(text, args)


def _place(finding: Finding) -> str:
    name = word(SECTIONS, finding.section)
    return f"{name} - {translate(_HARMLESS)}" if _is_harmless(finding) else name


def _is_harmless(finding: Finding) -> bool:
    return finding.status is Status.FAILED and not finding.blocks


def _framed(title: str) -> list[str]:
    return [_RULE, f"  {title}", _RULE]

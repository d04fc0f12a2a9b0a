"""`Preflight`: the findings and the recommendation of a preflight."""

from __future__ import annotations

from dataclasses import dataclass, field

import click

from safetrain.views.preflight_text import PreflightText
from safetrain_proto.v1.preflight_pb2 import PreflightEvent
from safetrain_shared.findings import Finding
from safetrain_shared.i18n import language, using
from safetrain_shared.jobs import Plan
from safetrain_shared.settings import FIELDS, SettingValue
from safetrain_shared.wire import finding_from_wire, plan_from_wire


@dataclass
class Preflight:
    """The findings of the seven sections, and the plan. `str()` is the text of the command.

    `plan`: settings, peak memory in bytes, expected seconds; None where nothing can be trained.
    `measured`: the plan was tried on this machine. `blocked`: a failed check prevents training.
    `report_path`, `config_path`: the files written.
    """

    findings: list[Finding] = field(default_factory=list)
    plan: Plan | None = None
    measured: bool = False
    passed: int = 0
    failed: int = 0
    warnings: int = 0
    blocked: bool = False
    report_path: str = ""
    config_path: str = ""
    lang: str | None = field(default=None, repr=False, compare=False)
    _formatter: PreflightText = field(default_factory=PreflightText, repr=False, compare=False)
    _lines: list[str] = field(default_factory=list, repr=False, compare=False)

    @property
    def settings(self) -> dict[str, SettingValue]:
        """The recommended settings, complete; empty where there are none."""
        if self.plan is None:
            return {}
        return {name: getattr(self.plan.settings, name) for name in FIELDS}

    def __str__(self) -> str:
        with using(self.lang or language()):
            return click.unstyle("\n".join([*self._formatter.opening(), *self._lines]))

    def take(self, event: PreflightEvent) -> None:
        """Add one message of the daemon."""
        with using(self.lang or language()):
            self._lines += self._formatter.lines(event)
        match event.WhichOneof("body"):
            case "finding":
                self.findings.append(finding_from_wire(event.finding))
            case "recommendation":
                self.plan = plan_from_wire(event.recommendation.plan)
                self.measured = event.recommendation.measured
            case "summary":
                for name in ("passed", "failed", "warnings", "blocked"):
                    setattr(self, name, getattr(event.summary, name))
                self.report_path = event.summary.report_path
                self.config_path = event.summary.config_path

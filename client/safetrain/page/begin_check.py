"""A preflight as pieces of the page, one for each of its events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from safetrain.page.render import Renderer, piece
from safetrain.page.ways_out import WayOut, ways_out
from safetrain.views.labels import SECTIONS, SIGNS, word
from safetrain.views.preflight_text import expected, is_chosen, value_text
from safetrain.views.settings_table import Setting, all_settings, allowed
from safetrain_proto.v1 import findings_pb2
from safetrain_proto.v1.preflight_pb2 import PreflightEvent, Recommendation
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import Plan
from safetrain_shared.messages import say
from safetrain_shared.settings import FIELDS
from safetrain_shared.wire import finding_from_wire, plan_from_wire


@dataclass(frozen=True, slots=True)
class Row:
    """One setting in the table of the recommendation."""

    setting: Setting
    value: str
    allowed: str


class CheckPieces:
    """Turns the events of one preflight into pieces. `choices`: (field, value) to carry on."""

    def __init__(self, render: Renderer, choices: Sequence[tuple[str, str]]) -> None:
        self._render = render
        self._choices = choices

    def opening(self) -> str:
        """Return the empty sheet of seven sections."""
        return self._render.piece(
            "sheet",
            "begin_sheet.html",
            sections=[(name, word(SECTIONS, name)) for name in SECTIONS],
            choices=self._choices,
        )

    def of(self, event: PreflightEvent) -> str:
        """Return the piece of one event; empty where nothing is shown of it."""
        match event.WhichOneof("body"):
            case "section":
                return self._render.piece(
                    f"state-{_known(event.section.section)}", "begin_working.html"
                )
            case "finding":
                return self._finding(event.finding)
            case "progress":
                shown: dict[str, Any] = {"phase": event.progress.phase, "done": event.progress.done}
                return self._render.piece("check-progress", "progress.html", **shown)
            case "recommendation":
                return self._recommendation(event.recommendation)
            case "summary":
                text = self._render.piece("outcome", "begin_outcome.html", summary=event.summary)
                return text + piece("check-progress", "")
        return ""

    def _finding(self, message: findings_pb2.Finding) -> str:
        finding = finding_from_wire(message)
        section = _known(finding.section)
        shown = {**_shown(finding, message.text), "section": section}
        line = self._render.piece(f"found-{section}", "begin_finding.html", "beforeend", **shown)
        return line + piece(f"state-{section}", "")

    def _recommendation(self, message: Recommendation) -> str:
        plan = plan_from_wire(message.plan)
        rows = list(_rows(plan))
        reasons = [
            _shown(finding, sent.text)
            for finding, sent in zip(plan.reasons, message.plan.reasons, strict=True)
        ]
        return self._render.piece(
            "recommendation",
            "begin_recommendation.html",
            measured=message.measured,
            first=[row for row in rows if is_chosen(plan, row.setting.name)],
            rest=[row for row in rows if not is_chosen(plan, row.setting.name)],
            reasons=reasons,
            expected=" ".join(expected(plan)),
            chosen=dict(self._choices),
        )


def _shown(finding: Finding, fallback: str) -> dict[str, Any]:
    ways: list[WayOut] = ways_out(finding)
    return {
        "status": str(finding.status),
        "sign": SIGNS[finding.status][0],
        "text": say(finding, fallback=fallback),
        "ways": ways,
    }


def _rows(plan: Plan) -> Iterator[Row]:
    settings = {one.name: one for one in all_settings()}
    for name in FIELDS:
        one = settings[name]
        yield Row(one, value_text(getattr(plan.settings, name)), allowed(one))


def _known(section: str) -> str:
    return section if section in SECTIONS else "recommendation"

"""A diagnosis as text: the findings of each topic, with their fixes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import click

from safetrain.views.labels import sign, word
from safetrain_proto.v1 import findings_pb2
from safetrain_shared.i18n import marked as _
from safetrain_shared.messages import SENTENCES, say, sentence
from safetrain_shared.wire import finding_from_wire

TOPICS = {
    "memory": _("Out of memory"),
    "model": _("Model not found, or downloading"),
    "speed": _("Training is slow"),
    "loss": _("Loss does not fall, or is unstable"),
    "gpu": _("GPU is not used"),
    "service": _("The service"),
}


def lines(findings: Iterable[findings_pb2.Finding]) -> Iterator[str]:
    """Yield the title of each topic and its findings."""
    topic = ""
    for message in findings:
        if message.section != topic:
            topic = message.section
            yield from ("", click.style(word(TOPICS, topic), bold=True))
        finding = finding_from_wire(message)
        yield f"  {sign(finding.status)} {say(finding, fallback=message.text)}"
        if fix := fix_of(message):
            yield f"      → {fix}"


def fix_of(message: findings_pb2.Finding) -> str:
    """Return what to do about a finding; empty where there is no such sentence."""
    code = f"{message.code}.fix"
    return sentence(code, finding_from_wire(message).args) if code in SENTENCES else ""


def to_json(message: findings_pb2.Finding) -> dict[str, Any]:
    """Return a finding as JSON, with its sentence and its fix."""
    from safetrain.views.json_output import finding_to_json

    return {**finding_to_json(message), "fix": fix_of(message)}

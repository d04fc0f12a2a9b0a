"""A diagnosis as text: the topics of troubleshooting, under each what was found and the fix."""

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
    """Each topic with its findings, in the order in which they come."""
    topic = ""
    for message in findings:
        if message.section != topic:
            topic = message.section
            yield from ("", click.style(word(TOPICS, topic), bold=True))
        finding = finding_from_wire(message)
        yield f"  {sign(finding.status)} {say(finding, fallback=message.text)}"
        if fix := mended(message):
            yield f"      → {fix}"


def mended(message: findings_pb2.Finding) -> str:
    """What to do about a finding; empty where its sentence says it already, or nothing is wrong."""
    code = f"{message.code}.fix"
    return sentence(code, finding_from_wire(message).args) if code in SENTENCES else ""


def to_json(message: findings_pb2.Finding) -> dict[str, Any]:
    """A finding with its sentence and its fix."""
    from safetrain.views.json_output import finding_to_json

    return {**finding_to_json(message), "fix": mended(message)}

"""The self-test as text: progress, verdicts, and a conclusion with the machine."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from safetrain.views.labels import sign, word
from safetrain_shared.codec import from_plain
from safetrain_shared.findings import Finding, Status
from safetrain_shared.i18n import marked, size
from safetrain_shared.i18n import translate as _
from safetrain_shared.messages import say

DOING = {
    "making": marked("making a tiny model"),
    "starting": marked("starting a service of its own"),
    "training": marked("training, left alone"),
    "again": marked("training again, left alone as well"),
    "fetching": marked("fetching a real model"),
    "real": marked("training a real model"),
    "killing": marked("training again, to be killed in the middle"),
}


def doing(what: str) -> str:
    """Return the name of a step of the self-test."""
    return word(DOING, what)


def verdict(finding: Mapping[str, Any]) -> str:
    """Return one finding of the self-test as text."""
    found = from_plain(finding, Finding)
    return f"{sign(found.status)} {say(found)}"


def conclusion(done: Mapping[str, Any]) -> list[str]:
    """Return the machine and the result, as lines."""
    passed = bool(done["passed"])
    text = _("All passed: training on this machine is exact, and its memory plan is right.")
    if not passed:
        text = _("Something did not pass. Please report it: safetrain diagnose --bundle FILE")
    mark = sign(Status.PASSED if passed else Status.FAILED)
    return ["", machine(done["machine"]), f"{mark} {text}"]


def machine(facts: Mapping[str, Any]) -> str:
    """Return the machine in a line: safetrain 0.1.0 · metal · Apple M2 · 16.0 GiB · mlx …."""
    host, device = facts.get("host") or {}, facts.get("device") or {}
    versions = facts.get("versions") or {}
    parts = [
        f"safetrain {versions.get('safetrain') or _own_version()}",
        str(device.get("kind", "")),
        str(host.get("chip", "")),
        f"{host.get('system', '')} {host.get('system_version', '')}".strip(),
        size(float(host.get("memory_total", 0))),
        f"Python {facts.get('python', '?')}",
        f"mlx {versions.get('mlx', '?')}",
        f"mlx-lm {versions.get('mlx-lm', '?')}",
    ]
    return " · ".join(part for part in parts if part)


def _own_version() -> str:
    try:
        return version("safetrain")
    except PackageNotFoundError:
        return "?"

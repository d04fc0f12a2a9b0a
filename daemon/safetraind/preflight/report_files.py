"""The two files of a preflight in the output folder, under the names of the user's document."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetrain_shared.codec import to_plain
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.messages import say
from safetrain_shared.paths import PREFLIGHT_REPORT, RECOMMENDED_CONFIG
from safetraind.planner.facts import Facts
from safetraind.storage.durable import write_json

_FIRST = (
    "batch_size",
    "gradient_accumulation",
    "max_seq_length",
    "learning_rate",
    "num_epochs",
    "warmup_steps",
    "save_steps",
    "eval_steps",
    "log_steps",
)


def recommended_config(plan: Plan) -> dict[str, Any]:
    """Return all settings of the plan, those of the user's document first, as `submit --config`
    reads them.
    """
    settings: dict[str, Any] = to_plain(plan.settings)
    return {name: settings[name] for name in _FIRST} | settings


def report(
    spec: JobSpec,
    facts: Facts,
    findings: Sequence[Finding],
    plan: Plan | None,
    counts: Mapping[str, int],
) -> dict[str, Any]:
    """Return the report as JSON: facts, findings with their English sentence, plan."""
    with_text = [{**to_plain(finding), "text": say(finding, lang="en")} for finding in findings]
    return {
        "format": 1,
        "version": 1,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "spec": to_plain(spec),
        "summary": dict(counts),
        "findings": with_text,
        "plan": None if plan is None else to_plain(plan),
        "facts": to_plain(facts),
    }


def write_files(output: Path, content: Mapping[str, Any], plan: Plan | None) -> tuple[str, str]:
    """Write the report, and the configuration where there is one. Return both paths.

    Raises OSError where the folder cannot be written.
    """
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / PREFLIGHT_REPORT, content)
    if plan is None:
        return str(output / PREFLIGHT_REPORT), ""
    write_json(output / RECOMMENDED_CONFIG, recommended_config(plan))
    return str(output / PREFLIGHT_REPORT), str(output / RECOMMENDED_CONFIG)

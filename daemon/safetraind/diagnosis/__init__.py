"""Diagnosis of a training: facts are gathered, then each topic is judged by a pure function."""

from safetrain_shared.findings import Finding
from safetraind.diagnosis import (
    gpu_unused,
    loss_curve,
    model_missing,
    out_of_memory,
    service_health,
    slow_training,
)
from safetraind.diagnosis.diagnosis_facts import Facts, Judge, in_section

# The topics of docs/troubleshooting.md, in its order; last the service itself.
TOPICS: tuple[tuple[str, Judge], ...] = (
    ("memory", out_of_memory.judge),
    ("model", model_missing.judge),
    ("speed", slow_training.judge),
    ("loss", loss_curve.judge),
    ("gpu", gpu_unused.judge),
    ("service", service_health.judge),
)


def examine(facts: Facts) -> list[Finding]:
    """Return the findings of all topics in order. Each topic has at least one."""
    return [in_section(topic, finding) for topic, judge in TOPICS for finding in judge(facts)]

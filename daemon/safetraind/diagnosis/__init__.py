"""What troubles a training: facts are gathered, then judged topic by topic, each purely."""

from safetrain_shared.findings import Finding
from safetraind.diagnosis import gpu, learning, memory, model, service, speed
from safetraind.diagnosis.facts import Facts, Judge, in_section

# The topics of the user's troubleshooting, in its order; last the service itself.
TOPICS: tuple[tuple[str, Judge], ...] = (
    ("memory", memory.judge),
    ("model", model.judge),
    ("speed", speed.judge),
    ("loss", learning.judge),
    ("gpu", gpu.judge),
    ("service", service.judge),
)


def examine(facts: Facts) -> list[Finding]:
    """All findings, topic by topic; each topic has at least one."""
    return [in_section(topic, finding) for topic, judge in TOPICS for finding in judge(facts)]

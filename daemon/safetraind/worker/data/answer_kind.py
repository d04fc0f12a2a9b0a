"""The kind of a file's answers: the share that differ, and the share that are JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from safetraind.worker.data.schema import Sample


@dataclass(slots=True)
class Answers:
    """The last answers of the samples that were counted."""

    seen: set[int] = field(default_factory=set)
    structured: int = 0

    def note(self, sample: Sample) -> None:
        """Count the last answer of one sample. A text without turns has none."""
        answer = _last_answer(sample)
        if answer:
            self.seen.add(hash(answer.strip()))
            self.structured += _is_json(answer)


def _last_answer(sample: Sample) -> str:
    if "completion" in sample:
        return str(sample["completion"])
    turns = [turn for turn in sample.get("messages", ()) if turn.get("role") == "assistant"]
    content = turns[-1].get("content") if turns else None
    return content if isinstance(content, str) else ""


def _is_json(answer: str) -> bool:
    """Return whether the whole answer is a JSON object or list."""
    if answer.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(answer)
    except (ValueError, RecursionError):
        return False
    return True

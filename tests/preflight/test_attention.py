"""Which layers keep attention scores: device, mask, window, head size."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from safetraind.planner.scored_share import scored_share
from tests.preflight.facts import SHAPE


@pytest.mark.parametrize(
    ("device", "packed", "changes", "share"),
    [
        ("metal", False, {}, 0.0),
        ("cuda", False, {}, 0.0),
        ("cpu", False, {}, 1.0),
        ("metal", True, {}, 1.0),
        ("metal", False, {"head_dim": 100}, 1.0),
        ("metal", False, {"soft_capped": True}, 1.0),
        ("metal", False, {"window": 512, "windowed": 0.75}, 0.75),
        ("metal", False, {"window": 2048, "windowed": 0.75}, 0.0),
    ],
)
def test_scores_are_kept_where_the_kernel_cannot_do_without(
    device: str, packed: bool, changes: dict[str, Any], share: float
) -> None:
    shape = dataclasses.replace(SHAPE, **changes)
    assert scored_share(shape, device, 1024, packed=packed) == share

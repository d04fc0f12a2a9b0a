"""How layers attend in training: device, width, mask, window, head size."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from safetraind.planner.layer_attention import attention
from tests.preflight.facts import SHAPE

WINDOWED = {"window": 512, "windowed": 0.75}


@pytest.mark.parametrize(
    ("device", "width", "packed", "changes", "kept", "in_blocks"),
    [
        ("metal", 512, False, {}, 0.0, 0.0),
        ("metal", 1024, False, {}, 0.0, 0.0),
        ("cuda", 512, False, {}, 0.0, 0.0),
        ("cpu", 512, False, {}, 1.0, 0.0),
        ("cpu", 528, False, {}, 0.0, 1.0),
        ("metal", 512, True, {}, 1.0, 0.0),
        ("metal", 1024, True, {}, 0.0, 1.0),
        ("metal", 512, False, {"head_dim": 100}, 1.0, 0.0),
        ("metal", 1024, False, {"head_dim": 100}, 0.0, 1.0),
        ("metal", 1024, False, {"soft_capped": True}, 1.0, 0.0),
        ("cpu", 1024, False, {"soft_capped": True}, 1.0, 0.0),
        ("metal", 512, False, {"sinks": True}, 1.0, 0.0),
        ("metal", 1024, False, {"sinks": True}, 0.0, 1.0),
        ("metal", 512, False, WINDOWED, 0.0, 0.0),
        ("metal", 1024, False, WINDOWED, 0.0, 0.75),
        ("metal", 400, False, {"window": 256, "windowed": 0.75}, 0.75, 0.0),
        ("metal", 1024, False, {"window": 2048, "windowed": 0.75}, 0.0, 0.0),
    ],
)
def test_scores_are_kept_only_where_neither_a_kernel_nor_blocks_do_without(
    device: str, width: int, packed: bool, changes: dict[str, Any], kept: float, in_blocks: float
) -> None:
    shape = dataclasses.replace(SHAPE, **changes)
    found = attention(shape, device, width, packed=packed)
    assert (found.kept, found.in_blocks) == (kept, in_blocks)

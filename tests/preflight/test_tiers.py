from __future__ import annotations

import pytest

from safetraind.planner.tiers import GIB, tier_for


@pytest.mark.parametrize(
    ("available", "expected"),
    [
        (0.5, (1, 8, 128, 1e-4)),
        (5.99, (1, 8, 128, 1e-4)),
        (6, (1, 4, 256, 2e-4)),
        (7.3, (1, 4, 256, 2e-4)),
        (8, (2, 2, 512, 3e-4)),
        (15.9, (2, 2, 512, 3e-4)),
        (16, (4, 2, 512, 5e-4)),
        (31.9, (4, 2, 512, 5e-4)),
        (32, (8, 1, 512, 5e-4)),
        (192, (8, 1, 512, 5e-4)),
    ],
)
def test_the_tier_is_the_documents_row_by_available_memory(
    available: float, expected: tuple[float, ...]
) -> None:
    tier = tier_for(int(available * GIB))
    row = (tier.batch_size, tier.gradient_accumulation, tier.max_seq_length, tier.learning_rate)
    assert row == expected

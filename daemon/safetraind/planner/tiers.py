"""The starting settings by available memory: the user's own table, for a 4-bit model of 7 B.

The planner starts from these and may choose smaller or larger values; its reasons say which.
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Tier:
    """One row: from `low` GiB of available memory up to, not including, `high` GiB."""

    low: int
    high: int
    batch_size: int
    gradient_accumulation: int
    max_seq_length: int
    learning_rate: float
    reason: str


TIERS = (
    Tier(0, 6, 1, 8, 128, 1e-4, "tier.very_limited"),
    Tier(6, 8, 1, 4, 256, 2e-4, "tier.limited"),
    Tier(8, 16, 2, 2, 512, 3e-4, "tier.moderate"),
    Tier(16, 32, 4, 2, 512, 5e-4, "tier.good"),
    Tier(32, 0, 8, 1, 512, 5e-4, "tier.ample"),
)


def tier_for(available: int) -> Tier:
    """Return the row for `available` bytes of memory."""
    return next(tier for tier in TIERS if not tier.high or available < tier.high * GIB)

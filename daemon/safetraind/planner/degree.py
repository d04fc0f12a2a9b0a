"""The three degrees of knowing a training's peak memory, and the margin that each asks for."""

from __future__ import annotations

from enum import IntEnum


class Degree(IntEnum):
    """The source of a predicted peak, the least certain first."""

    ESTIMATED = 0  # from the model's shape; nothing was run
    EXTRAPOLATED = 1  # from real steps at smaller shapes
    MEASURED = 2  # from real steps at the plan's heaviest shape

    @property
    def word(self) -> str:
        """The name in a plan: estimated, extrapolated or measured."""
        return self.name.lower()

    @property
    def margin(self) -> float:
        """Share of the memory for arrays that a plan of this degree leaves free."""
        return _MARGINS[self]


# docs/memory-plan.md says what each was chosen by.
_MARGINS = {Degree.ESTIMATED: 0.12, Degree.EXTRAPOLATED: 0.06, Degree.MEASURED: 0.03}

"""Integer options of the command line, limited to the 64-bit signed range of the protocol."""

from __future__ import annotations

from typing import Any

import click

from safetrain_shared.i18n import translate

MOST = 2**63 - 1


class Int64(click.IntRange):
    """An integer from `min` to MOST; help texts show the lower bound only."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the integer. Fails as click's own types do."""
        number = super().convert(value, param, ctx)
        if number > MOST:
            text = translate("{value} is not in the range {range}.")
            self.fail(text.format(value=number, range=f"x<={MOST}"), param, ctx)
        return number


JOB = Int64(1)

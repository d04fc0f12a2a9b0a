"""Whole numbers on the command line that the daemon can take: 64 bits with a sign."""

from __future__ import annotations

from typing import Any

import click

from safetrain_shared.i18n import translate

MOST = 2**63 - 1


class Int64(click.IntRange):
    """A whole number from `min` to MOST; help texts name the lower end alone."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number. Fails as click's own types do."""
        number = super().convert(value, param, ctx)
        if number > MOST:
            text = translate("{value} is not in the range {range}.")
            self.fail(text.format(value=number, range=f"x<={MOST}"), param, ctx)
        return number


JOB = Int64(1)

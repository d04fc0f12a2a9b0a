"""`Metrics`: a job's numbers as a table, one row a logged or evaluated step."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from safetrain_shared.events import Evaluated, Event, StepDone
from safetrain_shared.i18n import number

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped,import-not-found,unused-ignore]

Row = dict[str, Any]

# The columns of training_metrics.csv. Losses: mean per supervised token. Memory: bytes.
# time: seconds since the epoch, UTC.
COLUMNS = (
    "step",
    "epoch",
    "step_in_epoch",
    "train_loss",
    "valid_loss",
    "learning_rate",
    "grad_norm",
    "tokens",
    "tokens_per_second",
    "peak_memory",
    "footprint",
    "time",
)
_FROM_STEP = frozenset(COLUMNS) - {"train_loss", "valid_loss", "time"}


class Metrics(Sequence[Row]):
    """The rows in the order of their steps; a step that ran again after a kill stands once.

    A row is a dict with `columns` as its keys, None where nothing was measured at that step.
    """

    columns = COLUMNS

    def __init__(self, events: Iterable[Event]) -> None:
        rows: dict[int, Row] = {}
        for event in events:
            if isinstance(event.body, StepDone | Evaluated):
                row = rows.setdefault(event.body.step, dict.fromkeys(COLUMNS))
                row.update(_values(event.body), time=event.time)
        self._rows = [rows[step] for step in sorted(rows)]

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def column(self, name: str) -> list[Any]:
        """One column, None where a row has nothing there."""
        return [row[name] for row in self._rows]

    def to_pandas(self) -> pandas.DataFrame:
        """The table as a DataFrame with the step as its index. Needs pandas."""
        import pandas as pd

        return pd.DataFrame(self._rows, columns=list(COLUMNS)).set_index("step")

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in COLUMNS)
        rows = "".join(f"<tr>{''.join(map(_cell, row.values()))}</tr>" for row in self._rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _values(body: StepDone | Evaluated) -> Row:
    if isinstance(body, Evaluated):
        place = {"epoch": body.epoch, "step_in_epoch": body.step_in_epoch}
        return {"step": body.step, **place, "valid_loss": body.loss}
    return {"train_loss": body.loss, **{name: getattr(body, name) for name in _FROM_STEP}}


def _cell(value: float | None) -> str:
    text = "" if value is None else number(value)
    return f"<td>{html.escape(text)}</td>"

"""`Metrics`: a job's metrics as a table, one row per logged or evaluated step."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from safetrain_shared.events import Event
from safetrain_shared.history import COLUMNS, history
from safetrain_shared.i18n import number

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped,import-not-found,unused-ignore]

Row = dict[str, Any]


class Metrics(Sequence[Row]):
    """The rows ordered by step; a step that ran again after a kill appears once.

    A row is a dict with `columns` as its keys, None where nothing was measured at that step.
    """

    columns = COLUMNS

    def __init__(self, events: Iterable[Event]) -> None:
        self._rows = list(history(events).rows())

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
        """Return one column, None where a row has no value."""
        return [row[name] for row in self._rows]

    def to_pandas(self) -> pandas.DataFrame:
        """Return a DataFrame with the step as its index. Needs pandas."""
        import pandas as pd

        return pd.DataFrame(self._rows, columns=list(COLUMNS)).set_index("step")

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in COLUMNS)
        rows = "".join(f"<tr>{''.join(map(_cell, row.values()))}</tr>" for row in self._rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cell(value: float | None) -> str:
    text = "" if value is None else number(value)
    return f"<td>{html.escape(text)}</td>"

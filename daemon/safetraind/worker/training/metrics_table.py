"""The tables of a run for people and other programs: training_metrics.json and .csv.

They come from the event file: one row a logged or evaluated step, the last one where a step was
done again after a kill. They are written whole, by a rename, at each checkpoint.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from safetrain_shared.codec import to_plain
from safetrain_shared.events import Body, Evaluated, StepDone
from safetrain_shared.paths import METRICS_CSV, METRICS_JSON
from safetraind.storage import durable, event_file

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


class Metrics:
    """The rows of a run by step."""

    def __init__(self, events: Path) -> None:
        """Takes in what earlier attempts logged."""
        self._rows: dict[int, dict[str, Any]] = {}
        for read in event_file.read(events):
            self.add(read.event.body, read.event.time)

    def add(self, body: Body | None, time: float) -> None:
        """Takes in an event; `time` is seconds since the epoch, UTC."""
        if isinstance(body, StepDone):
            self._row(body.step).update(to_plain(body), train_loss=body.loss, time=time)
        elif isinstance(body, Evaluated):
            place = {"epoch": body.epoch, "step_in_epoch": body.step_in_epoch}
            self._row(body.step).update(place, valid_loss=body.loss, time=time)

    def write(self, output: Path) -> None:
        """Replaces both tables in `output`. Raises OSError."""
        rows = [self._rows[step] for step in sorted(self._rows)]
        rows = [{name: row.get(name) for name in COLUMNS} for row in rows]
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS)
        table.writeheader()
        table.writerows(rows)
        durable.write_json(output / METRICS_JSON, {"version": 1, "steps": rows})
        durable.write_text(output / METRICS_CSV, text.getvalue())

    def _row(self, step: int) -> dict[str, Any]:
        return self._rows.setdefault(step, {"step": step})

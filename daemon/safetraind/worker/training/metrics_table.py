"""The tables of a run for people and other programs: training_metrics.json and .csv.

They hold the rows of the run's history and are written whole, by a rename, at each checkpoint.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from safetrain_shared.history import COLUMNS, History
from safetrain_shared.paths import METRICS_CSV, METRICS_JSON
from safetraind.storage import durable


def write_tables(history: History, output: Path) -> None:
    """Replace both tables in `output`. Raises OSError."""
    rows = list(history.rows())
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS)
    table.writeheader()
    table.writerows(rows)
    durable.write_json(output / METRICS_JSON, {"format": 1, "version": 1, "steps": rows})
    durable.write_text(output / METRICS_CSV, text.getvalue())

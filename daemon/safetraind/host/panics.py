"""The reports that macOS writes after a kernel panic, once the machine has started again."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path("/Library/Logs/DiagnosticReports")


def panic_report(since: float, folder: Path = FOLDER) -> str:
    """Return the path of the newest panic report written at `since` (seconds since the epoch) or
    later; empty where there is none. Only names and times are looked at: the reports are the
    administrator's.
    """
    try:
        reports = [(path.stat().st_mtime, path) for path in folder.glob("*.panic")]
    except OSError:
        return ""
    newest = max(reports, default=(0.0, folder))
    return str(newest[1]) if newest[0] >= since and reports else ""

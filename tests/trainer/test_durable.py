"""What is brought to the disk is brought there truly, on macOS through the drive's cache too."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import pytest

from safetrain_shared.events import PhaseChanged
from safetraind.storage import durable
from safetraind.storage.event_file import EventWriter

FULL_SYNC = 51  # F_FULLFSYNC of macOS


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes that are brought through the drive's cache, on a machine like a Mac."""
    inodes: list[int] = []

    def control(descriptor: int, command: int) -> int:
        assert command == FULL_SYNC
        inodes.append(os.fstat(descriptor).st_ino)
        return 0

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", FULL_SYNC, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", control)
    return inodes


def test_a_file_is_synced_and_so_is_its_rename(tmp_path: Path, synced: list[int]) -> None:
    durable.write_text(tmp_path / "state.json", "{}")
    assert synced == [(tmp_path / "state.json").stat().st_ino, tmp_path.stat().st_ino]


def test_events_are_synced_truly(tmp_path: Path, synced: list[int]) -> None:
    events = EventWriter(tmp_path / "events.log", 1)
    events.append(PhaseChanged("saving"))
    events.sync()
    events.close()
    assert synced == [(tmp_path / "events.log").stat().st_ino]

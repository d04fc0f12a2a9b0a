"""A home of its own for every test, with a scripted daemon in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from safetrain_shared.paths import Home
from tests.client.fake import FakeDaemon


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty home; English, whatever the machine's locale; the current folder is empty too."""
    for name in ("SAFETRAIN_LANG", "LANGUAGE", "NO_COLOR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("SAFETRAIN_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return Home(tmp_path / "home")


@pytest.fixture
def daemon(home: Home) -> Iterator[FakeDaemon]:
    """A running scripted daemon."""
    fake = FakeDaemon(home)
    fake.start()
    yield fake
    fake.ended.set()
    fake.stop()

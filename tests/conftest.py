"""Fixtures for every test: a home of its own, and a real daemon that is gone afterwards."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import DaemonProcess

# A shell that runs the tests in the background lets them ignore Ctrl-C, and with them all that they
# start: the tests of Ctrl-C need its usual meaning.
signal.signal(signal.SIGINT, signal.default_int_handler)

gc.disable()  # while collecting, which makes some million objects that stay


pytest_plugins = ["tests.compilation", "tests.openblas", "tests.allowed_skips"]


def pytest_collection_finish() -> None:
    """No search for garbage looks again at what collecting made."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """English, and a lease of the tests' own: on a GPU it lies in the user's folder for state."""
    monkeypatch.setenv("SAFETRAIN_LANG", "en")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for `SAFETRAIN_HOME`, which is set to it; not made yet."""
    folder = tmp_path / "home"
    monkeypatch.setenv("SAFETRAIN_HOME", str(folder))
    return folder


@pytest.fixture
def daemon(home: Path) -> Iterator[DaemonProcess]:
    """`safetraind` serving `home`."""
    process = DaemonProcess(home)
    try:
        yield process.start()
    finally:
        process.end()

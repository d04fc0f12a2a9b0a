"""Long faults. They run where KILLS is set, as by `make soak`."""

from __future__ import annotations

import os

import pytest

from tests.daemon.conftest import make_spec, playing

__all__ = ["make_spec", "playing"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("KILLS"):
        return
    for item in items:
        if "/soak/" in item.nodeid or item.nodeid.startswith("soak/"):
            item.add_marker(pytest.mark.skip(reason="runs by `make soak`"))

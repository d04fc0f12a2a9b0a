"""The environment that workers are started in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from safetrain_shared.paths import Home
from safetraind.processes.supervisor import Supervisor

RELAXED = "AGX_RELAX_CDM_CTXSTORE_TIMEOUT"


def test_on_a_mac_the_gpu_watchdog_is_relaxed_unless_the_user_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = Supervisor(Home(tmp_path))
    monkeypatch.delenv(RELAXED, raising=False)
    assert RELAXED not in supervisor._environment("train", {}) or sys.platform == "darwin"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert supervisor._environment("train", {})[RELAXED] == "1"
    assert supervisor._environment("probe", {})[RELAXED] == "1"
    monkeypatch.setenv(RELAXED, "0")
    assert supervisor._environment("train", {})[RELAXED] == "0"

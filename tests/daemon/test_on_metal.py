"""A daemon that takes its device for Metal: one lease a user, nothing in the user's own home."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safetrain_shared.jobs import JobState
from safetraind.processes.lease import Lease
from tests.daemon.conftest import PLAY, MakeSpec
from tests.harness import DaemonProcess, wait_for

MAC = {"system": "Darwin", "on_battery": False, "battery_share": 0.9}


def test_two_homes_share_the_gpu_and_leave_the_users_home_alone(
    tmp_path: Path, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, state = tmp_path / "user", tmp_path / "state"
    user.mkdir()
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    play = {"PLAY_DEVICE": "metal", "PLAY_HOST": json.dumps(MAC)}
    one, two = (DaemonProcess(tmp_path / name, PLAY, play) for name in ("one", "two"))
    try:
        assert one.start().info().device == two.start().info().device == "metal"
        first = one.submit(make_spec("a", name="pace=0.05", num_epochs=100)).job.id
        wait_for(lambda: one.job(first).step > 1)
        second = two.submit(make_spec("b", num_epochs=1)).job.id
        assert two.state(second) is JobState.QUEUED, "the other home's job has the GPU"
        assert Lease(state / "safetrain" / "gpu.lock").held
        one.end()
        two.wait_for_state(second, JobState.SUCCEEDED)
        assert list(user.iterdir()) == []
    finally:
        one.end()
        two.end()

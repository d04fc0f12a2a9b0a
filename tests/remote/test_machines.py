"""One training over two machines: by a real sshd, each with its own home, daemon and worker."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from safetrain_shared.jobs import JobState
from safetraind.processes.locks import is_held
from tests.daemon import fakes
from tests.daemon.test_ranks import WORKER, adapter, interruptions, losses, spec_of, steps_on, tiny
from tests.harness import DaemonProcess, wait_for
from tests.remote.studio import Studio

__all__ = ["tiny"]

SERVICE = (sys.executable, fakes.__file__, "real", WORKER)


@pytest.fixture(scope="module")
def mini(studio: Studio) -> Iterator[DaemonProcess]:
    """The other machine's daemon, whose workers are `unhurried_worker` too."""
    process = DaemonProcess(studio.home, SERVICE)
    try:
        yield process.start()
    finally:
        process.end()


@pytest.fixture(scope="module")
def leader(
    studio: Studio, mini: DaemonProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaemonProcess]:
    """The daemon that is asked; it knows the other machine as `studio`."""
    process = DaemonProcess(tmp_path_factory.mktemp("leader") / "home", SERVICE)
    try:
        yield process.start()
    finally:
        process.end()


def lent(daemon: DaemonProcess) -> psutil.Process:
    """The worker of the rank that a daemon has lent."""
    return wait_for(
        lambda: next((p for p in daemon.workers() if "rank" in p.cmdline()), None),
        what="the rank of the other machine",
    )


def test_two_machines_equal_two_ranks_of_one_and_go_on_after_a_kill_and_a_cut_link(
    studio: Studio, mini: DaemonProcess, leader: DaemonProcess, tiny: Path, tmp_path: Path
) -> None:
    calm = leader.submit(spec_of(tiny, tmp_path / "calm", ranks=2)).job.id
    leader.wait_for_state(calm, JobState.SUCCEEDED)
    wild = leader.submit(spec_of(tiny, tmp_path / "wild", machines=("studio",))).job.id
    steps_on(leader, wild)
    assert is_held(mini.home.lease("cpu")), "the other machine has lent its GPU"
    here, there = leader.job(wild).ranks
    assert (here.machine, there.machine) == ("", "studio")
    wait_for(lambda: leader.job(wild).ranks[1].footprint, what="its memory is known")

    lent(mini).kill()
    wait_for(lambda: leader.job(wild).attempt == 2, what="a killed rank ends all")
    steps_on(leader, wild)
    assert studio.cut()
    leader.wait_for_state(wild, JobState.SUCCEEDED, seconds=180)

    killed, cut = interruptions(leader, wild)[:2]
    assert (killed.code, killed.args["machine"]) == ("job.machine_rank_killed", "studio")
    assert cut.code == "job.machine_lost"
    assert adapter(tmp_path / "wild") == adapter(tmp_path / "calm")
    assert set(losses(leader, wild)) == set(losses(leader, calm))
    wait_for(lambda: not mini.workers() + mini.keepers(), what="nothing is left behind there")
    assert not is_held(mini.home.lease("cpu")) and not is_held(leader.home.lease("cpu"))
    assert not list((mini.home.root / "runs").glob("rank-*"))

"""One training over two machines: by a real sshd, each with its own home, daemon and worker."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from safetrain.connection import error_of
from safetrain_shared.events import Notice, StepDone
from safetrain_shared.jobs import JobState
from safetrain_shared.remote import host_list, rdma
from safetrain_shared.remote.host_list import Host
from safetrain_shared.wire import finding_from_wire
from safetraind.processes.locks import is_held
from tests.daemon import fakes
from tests.daemon.test_ranks import WORKER, adapter, interruptions, losses, spec_of, steps_on, tiny
from tests.daemon.unhurried_worker import SECONDS
from tests.harness import DaemonProcess, kill_all, wait_for
from tests.remote.studio import Studio, command

__all__ = ["tiny"]

SERVICE = (sys.executable, fakes.__file__, "real", WORKER)


# A rank connects, and then is late to listen: a busy machine may run all others before it.
LATE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int bind(int fd, const struct sockaddr *address, socklen_t length) {
    int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "bind");
    if (getenv("MLX_RANK") && address->sa_family == AF_INET) usleep(300000);
    return real(fd, address, length);
}
"""


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What makes the ranks of a daemon late to listen."""
    folder = tmp_path_factory.mktemp("late")
    (folder / "late.c").write_text(LATE)
    command = ["cc", "-shared", "-fPIC", "-o", "late.so", "late.c", "-ldl"]
    subprocess.run(command, cwd=folder, check=True)
    return {"LD_PRELOAD": str(folder / "late.so")}


@pytest.fixture(scope="module")
def mini(studio: Studio, late: dict[str, str]) -> Iterator[DaemonProcess]:
    """The other machine's daemon, whose workers are `unhurried_worker` too."""
    process = studio.daemon(command=SERVICE, env=late)
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


def said_if_lent(daemon: DaemonProcess, verb: str) -> str:
    """The line with which a command tells that the daemon's GPU is lent; empty where it is not."""
    command = [sys.executable, "-m", "safetrain", verb]
    done = subprocess.run(command, capture_output=True, text=True, env=daemon.environment())
    return next((line for line in done.stdout.splitlines() if "is lent" in line), "")


@pytest.mark.slow
def test_two_machines_equal_two_ranks_of_one_and_go_on_after_a_kill_and_a_cut_link(
    studio: Studio, mini: DaemonProcess, leader: DaemonProcess, tiny: Path, tmp_path: Path
) -> None:
    calm = leader.submit(spec_of(tiny, tmp_path / "calm", ranks=2, max_steps=24)).job.id
    leader.wait_for_state(calm, JobState.SUCCEEDED)
    wild = leader.submit(
        spec_of(tiny, tmp_path / "wild", machines=("studio",), max_steps=24)
    ).job.id
    steps_on(leader, wild)
    assert is_held(mini.home.lease("cpu")), "the other machine has lent its GPU"
    here, there = leader.job(wild).ranks
    assert (here.machine, there.machine) == ("", "studio")
    wait_for(lambda: leader.job(wild).ranks[1].footprint, what="its memory is known")

    notices = [e.body.finding for e in leader.watch(wild) if isinstance(e.body, Notice)]
    (speed,) = [one for one in notices if one.code == "train.machines_speedup"]
    assert 1 < float(speed.args["speedup"]) < 3 and float(speed.args["share"]) > SECONDS

    lent(mini).kill()
    wait_for(lambda: leader.job(wild).attempt == 2, what="a killed rank ends all")
    steps_on(leader, wild, 1)
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


def test_a_machine_that_makes_all_slower_is_refused_with_the_numbers(
    mini: DaemonProcess, leader: DaemonProcess, tiny: Path, tmp_path: Path
) -> None:
    spec = spec_of(tiny, tmp_path / "slow", machines=("studio",))
    job = leader.submit(replace(spec, name="unequal")).job.id
    for verb in ("status", "jobs"):
        line = wait_for(lambda verb=verb: said_if_lent(mini, verb), what="it says that it lends")
        assert f"the training unequal that {platform.node()} leads" in line
    leader.wait_for_state(job, JobState.FAILED)
    wait_for(lambda: not said_if_lent(mini, "jobs"), what="nothing is lent any more")
    cause = finding_from_wire(leader.job(job).cause)
    assert cause.code == "train.machines_too_slow", (cause, interruptions(leader, job))
    assert cause.blocks and leader.job(job).attempt == 1, interruptions(leader, job)
    assert cause.args["slowest"] == "studio" and float(cause.args["share"]) > 1
    assert not [e for e in leader.watch(job) if isinstance(e.body, StepDone)]


def test_what_machines_do_not_have_alike_is_refused_at_submit(
    mini: DaemonProcess, leader: DaemonProcess, tiny: Path, tmp_path: Path
) -> None:
    def refusal(**changes: Any) -> tuple[str, str]:
        spec = spec_of(tiny, tmp_path / "no", **{"machines": ("studio",), **changes})
        with pytest.raises(grpc.RpcError) as refused:
            leader.submit(spec)
        error = error_of(refused.value, leader.home)
        return error.code, str(error)

    assert refusal(machines=("studio", "studio"))[0] == "machines.twice"
    assert refusal(ranks=2)[0] == "machines.with_ranks"
    assert refusal(machines=("-oProxyCommand=touch",))[0] == "hosts.destination"
    folder = tmp_path / "other"
    host_list.add(
        Host("me", "studio", command(folder).replace(f"{folder}/home", str(leader.home.root)))
    )
    assert refusal(machines=("me",))[0] == "machines.itself"
    code, text = refusal(machines=("nowhere.invalid",))
    assert code == "machines.unreachable" and "nowhere.invalid" in text


# `ibv_devices` of a Mac Studio, as MLX's documents show it.
DEVICES = """
    device          \t   node GUID
    ------          \t----------------
    rdma_en2        \t8096a9d9edbaac05
    rdma_en3        \t8196a9d9edbaac05
    rdma_en5        \t8396a9d9edbaac05
"""


@pytest.fixture
def cable(studio: Studio) -> Iterator[Path]:
    """What `mlx.distributed_config --backend jaccl` writes of two machines on one cable, and a
    program that lists the devices of either; yields the program.
    """
    hosts = [
        {"ssh": "localhost", "ips": ["10.0.0.1"], "rdma": [None, "rdma_en5"]},
        {"ssh": "studio.local", "ips": ["10.0.0.2"], "rdma": ["rdma_en3", None]},
    ]
    rdma.path().write_text(json.dumps({"backend": "jaccl", "envs": [], "hosts": hosts}))
    program = studio.settings.parent / "bin" / "ibv_devices"
    program.write_text(f"#!/bin/sh\ncat <<'END'{DEVICES}END\n")
    program.chmod(0o755)
    yield program
    program.unlink()
    rdma.path().unlink()


def test_machines_on_a_cable_are_joined_by_jaccl_and_go_on_after_a_kill(
    studio: Studio,
    mini: DaemonProcess,
    leader: DaemonProcess,
    cable: Path,
    tiny: Path,
    tmp_path: Path,
) -> None:
    calm = leader.submit(spec_of(tiny, tmp_path / "calm", ranks=2)).job.id
    leader.wait_for_state(calm, JobState.SUCCEEDED)
    wild = leader.submit(spec_of(tiny, tmp_path / "wild", machines=("studio",))).job.id
    steps_on(leader, wild)
    assert "MLX_IBV_DEVICES" in lent(mini).environ() and "MLX_HOSTFILE" not in lent(mini).environ()
    lent(mini).kill()
    leader.wait_for_state(wild, JobState.SUCCEEDED)
    assert [one.code for one in interruptions(leader, wild)] == ["job.machine_rank_killed"]
    assert adapter(tmp_path / "wild") == adapter(tmp_path / "calm")


@pytest.mark.usefixtures("cable", "mini")
def test_an_mlx_without_jaccl_is_told_in_one_sentence(
    leader: DaemonProcess, tiny: Path, tmp_path: Path
) -> None:
    """No MLX for Linux has it."""
    spec = spec_of(tiny, tmp_path / "none", machines=("studio",))
    job = leader.submit(replace(spec, name="without JACCL")).job.id
    leader.wait_for_state(job, JobState.FAILED)
    cause = finding_from_wire(leader.job(job).cause)
    assert (cause.code, cause.args["machine"]) == ("train.no_jaccl", platform.node())
    assert leader.job(job).attempt == 1


def test_a_device_that_is_not_there_is_refused_at_submit(
    mini: DaemonProcess, leader: DaemonProcess, cable: Path, tiny: Path, tmp_path: Path
) -> None:
    def refusal() -> dict[str, Any]:
        with pytest.raises(grpc.RpcError) as refused:
            leader.submit(spec_of(tiny, tmp_path / "no", machines=("studio",)))
        error = error_of(refused.value, leader.home)
        assert error.code == "machines.no_rdma"
        return dict(error.args_by_name)

    listed = cable.read_text()
    cable.write_text(listed.replace("rdma_en3", "rdma_en7"))
    assert refusal() == {"machine": "studio", "devices": "rdma_en3"}
    cable.write_text("#!/bin/sh\nexit 1\n")
    assert refusal() == {"machine": platform.node(), "devices": "rdma_en5"}


@pytest.mark.slow
def test_without_a_machine_that_is_away_it_waits_or_goes_on_with_fewer_as_was_chosen(
    studio: Studio, mini: DaemonProcess, leader: DaemonProcess, tiny: Path, tmp_path: Path
) -> None:
    """The last test of this file: the other machine does not come back."""
    machines: dict[str, Any] = {"machines": ("studio",)}
    spec = spec_of(tiny, tmp_path / "fewer", **machines, fewer_machines=True)
    fewer = leader.submit(spec).job.id
    waits = leader.submit(spec_of(tiny, tmp_path / "waits", **machines)).job.id
    steps_on(leader, fewer)
    serving = psutil.Process(studio.server.pid).children(recursive=True)
    studio.server.kill()
    kill_all(serving)

    leader.wait_for_state(fewer, JobState.SUCCEEDED, seconds=120)
    codes = [e.body.finding.code for e in leader.watch(fewer) if isinstance(e.body, Notice)]
    assert "machines.missing" in codes
    steps = [e.body for e in leader.watch(fewer) if isinstance(e.body, StepDone)]
    assert steps[-1].step == steps[-1].total_steps == 9, "the effective batch is the same"

    wait_for(lambda: leader.job(waits).cause.code == "machines.unreachable", what="it waits")
    assert leader.state(waits) is JobState.INTERRUPTED

"""Random faults on either side of a training over several machines change nothing of its result."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from safetrain_shared.jobs import FINAL, JobState
from safetrain_shared.remote import host_list
from safetrain_shared.remote.host_list import Host
from safetraind.processes.locks import is_held
from tests.daemon import fakes
from tests.daemon.test_ranks import WORKER, adapter, interruptions, losses, spec_of, tiny
from tests.harness import DaemonProcess, wait_for
from tests.remote.studio import Studio, command, running
from tests.soak.left_over import left_over
from tests.soak.strikes import strike

__all__ = ["tiny"]

KILLS = int(os.environ.get("KILLS") or "20")
SEED = int(os.environ.get("SOAK_SEED") or time.time())
MACHINES = [int(part) for part in os.environ.get("SOAK_MACHINES", "2,3,4").split(",")]
SERVICE = (sys.executable, fakes.__file__, "real", WORKER)
STEPS_PER_FAULT = 3

pytestmark = [pytest.mark.slow, pytest.mark.compiled, pytest.mark.timeout(60 * KILLS + 300)]


@dataclass
class Several:
    """The leader, and the other machines: hosts of one sshd, each with a home of its own."""

    studio: Studio
    leader: DaemonProcess
    others: dict[str, DaemonProcess]

    @property
    def all(self) -> list[DaemonProcess]:
        return [self.leader, *self.others.values()]


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    with running(tmp_path_factory.mktemp("studio")) as studio, contextlib.ExitStack() as stack:
        others = {}
        for number in range(1, max(MACHINES)):
            name, folder = f"mini{number}", tmp_path_factory.mktemp(f"mini{number}")
            studio.add(name)
            host_list.add(Host(name, name, command(folder)))
            others[name] = studio.daemon(folder / "home", SERVICE)
        leader = DaemonProcess(tmp_path_factory.mktemp("leader") / "home", SERVICE)
        for daemon in (leader, *others.values()):
            stack.callback(daemon.end)
            daemon.start()
        yield Several(studio, leader, others)


def strike_any(several: Several, names: list[str], rng: random.Random) -> str | None:
    """Do one thing to one of them; return what, None where there was nothing to do it to."""
    daemon = rng.choice([several.leader, *(several.others[name] for name in names)])
    side = "here" if daemon is several.leader else "there"
    whom = rng.choice(["worker", "worker", "keeper", "daemon", "link"])
    number = rng.choice([signal.SIGKILL, signal.SIGSTOP])
    if whom == "link":
        return "cut link" if several.studio.cut() else None
    struck = strike(daemon, whom, number, rng)
    return f"{struck} {side}" if struck else None


@pytest.mark.parametrize("machines", MACHINES)
def test_random_faults_change_nothing(
    machines: int, several: Several, tiny: Path, tmp_path: Path
) -> None:
    count, rng, leader = KILLS // len(MACHINES), random.Random(SEED), several.leader
    names = list(several.others)[: machines - 1]
    steps = STEPS_PER_FAULT * (count + 2)
    settings = {"max_steps": steps, "save_steps": 1, "lora_dropout": 0.1}
    calm = leader.submit(spec_of(tiny, tmp_path / "calm", ranks=machines, **settings)).job.id
    leader.wait_for_state(calm, JobState.SUCCEEDED, seconds=300)
    spec = spec_of(tiny, tmp_path / "wild", machines=tuple(names), **settings)
    wild = leader.submit(spec).job.id

    done: Counter[str] = Counter()
    waits, step = [], 0
    while sum(done.values()) < count and leader.state(wild) not in FINAL:
        struck = strike_any(several, names, rng)
        if struck is None:
            continue
        done[struck] += 1
        began = time.monotonic()
        wait_for(
            lambda step=step: leader.state(wild) in FINAL or leader.job(wild).step > step,
            seconds=300,
            what=f"the training goes on after {struck}",
        )
        waits.append(time.monotonic() - began)
        step = leader.job(wild).step + 1
    leader.wait_for_state(wild, JobState.SUCCEEDED, seconds=300)

    causes = interruptions(leader, wild)
    print(f"\n{machines} machines, SOAK_SEED={SEED}: {dict(done)}")
    print(dict(Counter(cause.code for cause in causes)))
    print(f"on after {max(waits):.1f} s at most; {leader.job(wild).attempt} attempts")
    assert adapter(tmp_path / "wild") == adapter(tmp_path / "calm")
    assert set(losses(leader, calm)) == set(losses(leader, wild)), "no step gave two results"
    for name in names:
        other = several.others[name]
        wait_for(lambda other=other: not other.workers() + other.keepers(), what="none is left")
        assert not is_held(other.home.lease("cpu"))
    leader.terminate()
    assert left_over(leader, tmp_path / "wild") == []
    leader.start()

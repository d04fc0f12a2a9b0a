"""Random kills and stops of ranks, their keepers and the daemon: the result is equal to the bit."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetrain_shared.events import StateChanged
from safetrain_shared.jobs import FINAL, JobState
from safetraind.processes.rank_watch import CONFIRM_SECONDS, START_SECONDS
from tests.daemon.test_ranks import (
    ADAPTERS_AGREE,
    adapter,
    daemon,
    distance,
    losses,
    spec_of,
    tiny,
)
from tests.daemon.unhurried_worker import PATIENCE_SECONDS
from tests.harness import DaemonProcess, wait_for
from tests.soak.left_over import left_over
from tests.soak.strikes import strike

__all__ = ["daemon", "tiny"]

KILLS = int(os.environ.get("KILLS") or "20")
SEED = int(os.environ.get("SOAK_SEED") or time.time())
RANKS = [int(part) for part in os.environ.get("SOAK_RANKS", "2,3,4").split(",")]
STEPS_PER_FAULT = 3
# The patience of `unhurried_worker` and what the daemon adds to it; the rest is a busy machine.
FOUND_SECONDS = PATIENCE_SECONDS + CONFIRM_SECONDS + 6

pytestmark = [pytest.mark.slow, pytest.mark.compiled, pytest.mark.timeout(40 * KILLS + 300)]


@pytest.mark.parametrize("ranks", RANKS)
def test_ranks_agree_with_one_process(
    ranks: int, daemon: DaemonProcess, tiny: Path, tmp_path: Path
) -> None:
    jobs = {
        name: daemon.submit(spec_of(tiny, tmp_path / name, ranks=count)).job.id
        for name, count in (("alone", 1), ("several", ranks))
    }
    for job in jobs.values():
        daemon.wait_for_state(job, JobState.SUCCEEDED, seconds=300)
    alone, several = (losses(daemon, job) for job in jobs.values())
    assert several == pytest.approx(alone)  # 1e-6 of each
    worst = max(abs(one / other - 1) for one, other in zip(several, alone, strict=True))
    apart = distance(tmp_path / "several", tmp_path / "alone")
    print(f"\n{ranks} ranks against one process: loss off by {worst:.1e}, adapter by {apart:.1e}")
    assert apart <= ADAPTERS_AGREE


def faults(rng: random.Random) -> Iterator[tuple[str, signal.Signals]]:
    """Whom to send what, for ever."""
    while True:
        whom = rng.choice(["worker", "worker", "worker", "keeper", "daemon"])
        yield whom, rng.choice([signal.SIGKILL, signal.SIGSTOP])


@pytest.mark.parametrize("ranks", RANKS)
def test_random_faults_change_nothing(
    ranks: int, daemon: DaemonProcess, tiny: Path, tmp_path: Path
) -> None:
    count = KILLS // len(RANKS)
    rng = random.Random(SEED)
    steps = STEPS_PER_FAULT * (count + 2)
    settings = {"ranks": ranks, "max_steps": steps, "save_steps": 1, "lora_dropout": 0.1}
    calm = daemon.submit(spec_of(tiny, tmp_path / "calm", **settings)).job.id
    daemon.wait_for_state(calm, JobState.SUCCEEDED, seconds=300)
    wild = daemon.submit(spec_of(tiny, tmp_path / "wild", **settings)).job.id

    done: Counter[str] = Counter()
    waits, step = [], 0
    for whom, number in faults(rng):
        if sum(done.values()) == count or daemon.state(wild) in FINAL:
            break
        struck = strike(daemon, whom, number, rng)
        if struck is None:
            continue
        done[struck] += 1
        began = time.monotonic()
        wait_for(
            lambda step=step: daemon.state(wild) in FINAL or daemon.job(wild).step > step,
            seconds=240,
            what=f"the training goes on after {struck}",
        )
        waits.append(time.monotonic() - began)
        step = daemon.job(wild).step + 1
    daemon.wait_for_state(wild, JobState.SUCCEEDED, seconds=300)

    changes = [e.body for e in daemon.watch(wild) if isinstance(e.body, StateChanged)]
    causes = [body.cause for body in changes if body.state is JobState.INTERRUPTED and body.cause]
    hung = [cause.args for cause in causes if "seconds" in cause.args]
    found = [float(args["seconds"] or 0) for args in hung]
    print(f"\n{ranks} ranks, SOAK_SEED={SEED}: {dict(done)}")
    print(f"{dict(Counter(cause.code for cause in causes))}; hangs found within {found} s")
    print(f"on after {max(waits):.1f} s at most; {daemon.job(wild).attempt} attempts")
    in_steps = [seconds for args, seconds in zip(hung, found, strict=True) if args["step"]]
    assert all(seconds <= FOUND_SECONDS for seconds in in_steps)
    assert all(seconds <= START_SECONDS + FOUND_SECONDS for seconds in found)
    assert adapter(tmp_path / "wild") == adapter(tmp_path / "calm")
    assert set(losses(daemon, calm)) == set(losses(daemon, wild)), "no step gave two results"
    daemon.terminate()
    assert left_over(daemon, tmp_path / "wild") == []
    daemon.start()

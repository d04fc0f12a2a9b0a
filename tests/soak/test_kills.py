"""Random kills of daemon, worker, keeper and all, over many jobs; the report adds up over runs."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from safetrain_shared.jobs import FINAL, JobState
from tests.daemon.conftest import MakeSpec
from tests.daemon.test_accidents import Watcher, read_result, result_of
from tests.harness import DaemonProcess, kill_all, wait_for

KILLS = int(os.environ.get("KILLS") or "20")
SEED = int(os.environ.get("SOAK_SEED") or time.time())
REPORT = Path("reports/soak_kills.json")
STEPS = 150
WATCHERS = 10

pytestmark = [pytest.mark.slow, pytest.mark.timeout(20 * KILLS + 300)]


class Killer:
    """Kills at random, but a worker only once it has brought a new checkpoint: three attempts
    without one are meant to fail.
    """

    def __init__(self, daemon: DaemonProcess, draw: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._daemon, self._draw = daemon, draw
        self._step = 0

    def strike(self, job_id: int) -> None:
        """One kill, and a daemon again if it was the victim."""
        time.sleep(self._draw.uniform(0.0, 0.8))
        step = self._daemon.job(job_id).step
        kinds = ["daemon", "keeper"]
        if step > self._step + 5:
            kinds += ["worker", "worker and keeper", "all"]
        kind = self._draw.choice(kinds)
        if kind in ("worker", "worker and keeper", "all"):
            self._step = step
        self._kill(kind)
        self.done[kind] += 1

    def next_job(self) -> None:
        """A new job begins at step 0."""
        self._step = 0

    def _kill(self, kind: str) -> None:
        victims = self._daemon.workers() if "worker" in kind or kind == "all" else []
        victims += self._daemon.keepers() if "keeper" in kind or kind == "all" else []
        kill_all(victims)
        if kind in ("daemon", "all"):
            self._daemon.kill()
            self._daemon.start()


def test_no_kill_loses_doubles_or_changes_anything(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    playing.start()
    killer = Killer(playing, random.Random(SEED))
    found: Counter[str] = Counter()
    while killer.done.total() < KILLS:
        found["jobs"] += 1
        killer.next_job()
        output = f"out{found['jobs']}"
        spec = make_spec(output, name="pace=0.02", num_epochs=STEPS // 10, save_steps=2)
        job_id = playing.submit(spec).job.id
        watchers = [Watcher(playing, job_id) for _ in range(WATCHERS)]
        while playing.state(job_id) not in FINAL and killer.done.total() < KILLS:
            killer.strike(job_id)
        found += _judged(playing, job_id, watchers, tmp_path / output)
    _report({"seed": SEED, "kills": killer.done.total(), **killer.done, **found})
    assert not {key: found[key] for key in ("lost", "doubled", "wrong", "stuck") if found[key]}


def _judged(
    daemon: DaemonProcess, job_id: int, watchers: list[Watcher], output: Path
) -> Counter[str]:
    """Counts what went wrong with a job."""
    found: Counter[str] = Counter()
    try:
        wait_for(lambda: daemon.state(job_id) in FINAL, 60)
    except AssertionError:
        found["stuck"] += 1
        return found
    if daemon.state(job_id) is not JobState.SUCCEEDED or read_result(output) != result_of(STEPS):
        found["wrong"] += 1
        return found
    told = [event.seq for event in daemon.watch(job_id)]
    found["events"] += len(told)
    for watcher in watchers:
        watcher.join(30)
        found["deliveries"] += len(watcher.seqs)
        found["lost"] += len(set(told) - set(watcher.seqs))
        found["doubled"] += len(watcher.seqs) - len(set(watcher.seqs))
    found["doubled"] += len(told) - len(set(told))
    return found


def _report(run: dict[str, int]) -> None:
    """Adds this run to the report, and prints the sums."""
    REPORT.parent.mkdir(exist_ok=True)
    runs = json.loads(REPORT.read_text()) if REPORT.exists() else []
    runs.append(run)
    REPORT.write_text(json.dumps(runs, indent=1) + "\n")
    total: Counter[str] = Counter()
    for one in runs:
        total += Counter({key: value for key, value in one.items() if key != "seed"})
    zero = {key: total[key] for key in ("lost", "doubled", "wrong", "stuck")}
    print(f"\nthis run: {run}\nall {len(runs)} runs: {dict(total) | zero}")

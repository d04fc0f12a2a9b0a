"""What fifty watchers of a real training cost: CPU seconds of the daemon beside the worker's."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil

from safetrain_proto.v1 import events_pb2, events_pb2_grpc
from safetrain_shared.jobs import JobSpec
from tests.harness import DaemonProcess, wait_for

WATCHERS = 50
STRETCH_SECONDS = 15.0
STRETCHES = 3  # with watchers, and as many without, in turn
DATA = Path(__file__).parents[2] / "data"
# Small steps, each of them logged: more events a second than any training at the defaults.
SETTINGS = {
    "batch_size": 1,
    "gradient_accumulation": 1,
    "max_seq_length": 64,
    "num_epochs": 100,
    "log_steps": 1,
    "lora_layers": 4,
}


@dataclass(frozen=True, slots=True)
class Stretch:
    """CPU seconds of daemon and worker in some seconds, and the steps done."""

    daemon: float
    worker: float
    steps: int

    def __add__(self, other: Stretch) -> Stretch:
        return Stretch(
            self.daemon + other.daemon, self.worker + other.worker, self.steps + other.steps
        )


def report(model: Path) -> None:
    """Prints the daemon's CPU seconds beside a training's, watched and not, and the difference."""
    nobody, everybody = Stretch(0, 0, 0), Stretch(0, 0, 0)
    with _training(model) as (daemon, job):
        for _ in range(STRETCHES):
            nobody += asyncio.run(_measured(daemon, job, 0))
            everybody += asyncio.run(_measured(daemon, job, WATCHERS))
    print(f"\n{WATCHERS} watchers of a real training, each step an event: {STRETCHES} stretches of")
    print(f"{STRETCH_SECONDS:.0f} s with them and as many without, in turn")
    shares = []
    for name, stretch in (("no watcher", nobody), (f"{WATCHERS} watchers", everybody)):
        shares.append(stretch.daemon / stretch.worker)
        print(f"  {name:12} {shares[-1]:.2%}: CPU of the daemon {stretch.daemon:.2f} s,", end=" ")
        print(f"of the worker {stretch.worker:.1f} s, {stretch.steps} steps")
    print(f"  the watchers cost {shares[1] - shares[0]:.2%} of the run's CPU seconds")


@contextmanager
def _training(model: Path) -> Iterator[tuple[DaemonProcess, int]]:
    """A daemon of its own whose job has begun to train."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        daemon = DaemonProcess(folder / "home")
        train, valid = (str(DATA / f"farense_{part}.jsonl") for part in ("train", "valid"))
        spec = JobSpec(str(model), train, valid, str(folder / "out"), settings=SETTINGS)
        try:
            job = int(daemon.start().submit(spec).job.id)
            wait_for(lambda: daemon.job(job).step > 5, 300, "the training has begun")
            yield daemon, job
        finally:
            daemon.end()


async def _measured(daemon: DaemonProcess, job: int, watchers: int) -> Stretch:
    """A stretch from before the watchers come to after they left."""
    assert daemon.process is not None
    processes = psutil.Process(daemon.process.pid), daemon.workers()[0]
    before, step = [_cpu_seconds(p) for p in processes], daemon.job(job).step
    seen = [0] * watchers
    tasks = [asyncio.create_task(_watch(daemon, job, seen, n)) for n in range(watchers)]
    await asyncio.sleep(STRETCH_SECONDS)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    after, steps = [_cpu_seconds(p) for p in processes], daemon.job(job).step - step
    if watchers and min(seen) < steps - 5:
        raise SystemExit(f"{steps} steps, but a watcher saw {min(seen)} events")
    return Stretch(after[0] - before[0], after[1] - before[1], steps)


async def _watch(daemon: DaemonProcess, job: int, seen: list[int], number: int) -> None:
    """As `safetrain watch` does, over a connection of its own."""
    async with grpc.aio.insecure_channel(
        f"unix:{daemon.home.socket}", options=[("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        stub = events_pb2_grpc.EventsStub(channel)
        async for batch in stub.Watch(events_pb2.WatchRequest(job_id=job, follow=True)):
            seen[number] += len(batch.events)


def _cpu_seconds(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)

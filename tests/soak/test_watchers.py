"""A hundred watchers at ten events a second: what they cost the daemon."""

from __future__ import annotations

import asyncio
import time

import grpc
import psutil
import pytest

from safetrain_proto.v1 import events_pb2, events_pb2_grpc
from safetrain_shared.jobs import JobState
from tests.daemon.conftest import MakeSpec
from tests.harness import DaemonProcess

WATCHERS = 100
SECONDS = 30.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def watch(socket: str, job_id: int, counts: list[int], number: int) -> None:
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        stub = events_pb2_grpc.EventsStub(channel)
        request = events_pb2.WatchRequest(job_id=job_id, follow=True)
        async for batch in stub.Watch(request):
            counts[number] += len(batch.events)


async def measure(daemon: DaemonProcess, job_id: int) -> tuple[float, int, list[int]]:
    """Share of a core, growth in bytes, events each watcher got."""
    assert daemon.process is not None
    process = psutil.Process(daemon.process.pid)
    counts = [0] * WATCHERS
    tasks = [
        asyncio.create_task(watch(str(daemon.home.socket), job_id, counts, n))
        for n in range(WATCHERS)
    ]
    await asyncio.sleep(5)
    before, memory, begin = sum(process.cpu_times()[:2]), process.memory_info().rss, time.time()
    await asyncio.sleep(SECONDS)
    share = (sum(process.cpu_times()[:2]) - before) / (time.time() - begin)
    growth = process.memory_info().rss - memory
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return share, growth, counts


def test_a_hundred_watchers_cost_little(playing: DaemonProcess, make_spec: MakeSpec) -> None:
    job = playing.start().submit(make_spec(name="pace=0.1", num_epochs=100, save_steps=50)).job
    playing.wait_for_state(job.id, JobState.RUNNING)
    share, growth, counts = asyncio.run(measure(playing, job.id))
    print(f"\n{WATCHERS} watchers: {share:.1%} of a core, {growth / 1024:.0f} KB more")
    assert min(counts) > 8 * SECONDS
    assert max(counts) - min(counts) <= 10
    assert share <= 0.05
    assert growth < 2 << 20

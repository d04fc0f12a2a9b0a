"""No `seq` that somebody may know is given out again, whatever the event file lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from safetrain_shared.jobs import JobState
from safetrain_shared.paths import Home
from safetraind.storage.delivered_watermark import DeliveredWatermark
from tests.daemon.conftest import MakeSpec
from tests.daemon.fakes import let_go
from tests.harness import DaemonProcess, kill_all, wait_for


def test_what_went_out_is_known_after_a_kill_and_never_less(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.run(1).root.mkdir(parents=True)
    watermark = DeliveredWatermark(home)
    for seq in (1, 9, 10, 1234, 7):  # the last: a file that was cut
        watermark.note(1, seq)
    assert watermark.known(1) == 1234
    assert DeliveredWatermark(home).known(1) == 1234
    assert DeliveredWatermark(home).known(2) == 0


def test_where_nothing_can_be_written_memory_knows(tmp_path: Path) -> None:
    watermark = DeliveredWatermark(Home(tmp_path / "missing"))
    watermark.note(1, 3)
    assert watermark.known(1) == 3


def test_an_event_file_cut_below_what_watchers_saw_goes_on_above_it(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """Daemon and worker die in mid-training, and the file loses half of what was delivered."""
    job = playing.start().submit(make_spec(name="hold=60", num_epochs=10)).job.id
    seen = []
    for event in playing.watch(job, follow=True):
        seen.append(event.seq)
        if len(seen) == 60:
            break
    playing.kill()
    kill_all([*playing.keepers(), *playing.workers()])
    wait_for(lambda: not playing.workers())
    file = playing.home.run(job).events
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:31]))  # with the header
    let_go(tmp_path / "out")
    playing.start()
    playing.wait_for_state(job, JobState.SUCCEEDED)
    later = [event.seq for event in playing.watch(job, seen[-1])]
    everything = [event.seq for event in playing.watch(job)]
    assert everything == sorted(set(everything))
    assert everything[:30] == seen[:30]
    assert everything[30:] == later, "who has seen 60 misses nothing that came after the cut"


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_another_daemon_leaves_no_gap(
    playing: DaemonProcess, make_spec: MakeSpec, how: str
) -> None:
    job = playing.start().submit(make_spec(name="pace=0.02")).job.id
    wait_for(lambda: playing.job(job).step > 2)
    getattr(playing, how)()
    playing.start()
    playing.wait_for_state(job, JobState.SUCCEEDED)
    watermark = [event.seq for event in playing.watch(job)]
    assert watermark == list(range(1, len(watermark) + 1))

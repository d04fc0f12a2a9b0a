"""No `seq` that somebody may know is given out again, whatever the event file lost."""

from __future__ import annotations

from pathlib import Path

from safetrain_shared.errors import NoRoom
from safetrain_shared.jobs import JobState
from safetraind.jobs.seqs import AHEAD, Seqs
from safetraind.jobs.store import Store
from tests.daemon.conftest import MakeSpec
from tests.daemon.test_store import add
from tests.harness import DaemonProcess, kill_all, wait_for


class CountingStore(Store):
    """Counts how often a `seq` is kept; may be full."""

    kept = 0
    full = False

    def keep_seq(self, job_id: int, seq: int) -> None:
        if self.full:
            raise NoRoom("disk.full", path="jobs.db")
        self.kept += 1
        super().keep_seq(job_id, seq)


def test_the_database_is_asked_once_a_block_and_always_first(tmp_path: Path) -> None:
    store = CountingStore(tmp_path / "jobs.db")
    job, seqs = add(store), Seqs(store)
    for seq in range(1, 5 * AHEAD):
        seqs.note(job, seq)
        assert seqs.known(job) == seq
        assert store.get(job).last_seq >= seq
    assert store.kept == 5
    seqs.settle()
    assert store.get(job).last_seq == 5 * AHEAD - 1
    after_a_kill = Seqs(store)
    after_a_kill.begin(job, store.get(job).last_seq)
    after_a_kill.note(job, 7)  # a file that was cut
    assert after_a_kill.known(job) == 5 * AHEAD - 1


def test_on_a_full_disk_memory_knows_and_the_database_learns_it_later(tmp_path: Path) -> None:
    store = CountingStore(tmp_path / "jobs.db")
    job, seqs = add(store), Seqs(store)
    store.full = True
    seqs.note(job, 3)
    assert (seqs.known(job), store.get(job).last_seq) == (3, 0)
    store.full = False
    seqs.note(job, 4)
    assert store.get(job).last_seq == 4 + AHEAD


def test_an_event_file_cut_below_what_watchers_saw_goes_on_above_it(
    playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    """Daemon and worker die in mid-training, and the file loses half of what was delivered."""
    job = playing.start().submit(make_spec(name="pace=0.005", num_epochs=40)).job.id
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
    file.write_bytes(b"".join(lines[:30]))
    playing.start()
    playing.wait_for_state(job, JobState.SUCCEEDED)
    later = [event.seq for event in playing.watch(job, seen[-1])]
    everything = [event.seq for event in playing.watch(job)]
    assert everything == sorted(set(everything))
    assert everything[:30] == seen[:30]
    assert everything[30:] == later, "who has seen 60 misses nothing that came after the cut"


def test_a_restart_that_was_asked_for_leaves_no_gap(
    playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    job = playing.start().submit(make_spec(name="pace=0.02")).job.id
    wait_for(lambda: playing.job(job).step > 2)
    playing.terminate()
    playing.start()
    playing.wait_for_state(job, JobState.SUCCEEDED)
    seqs = [event.seq for event in playing.watch(job)]
    assert seqs == list(range(1, len(seqs) + 1))

"""Event file and feed: what readers get from whole, torn, flipped and cut files."""

from __future__ import annotations

import asyncio
import json
import math
import zlib
from pathlib import Path

import pytest

from safetrain_shared.errors import Incompatible
from safetrain_shared.events import Damaged, Evaluated, Event, PhaseChanged
from safetrain_shared.paths import RunFolder
from safetraind.processes.supervisor import SEQ_BLOCK, seq_floor, write_launch
from safetraind.storage import event_file
from safetraind.storage.event_feed import CHUNK_EVENTS, EventFeed


def write(path: Path, count: int, floor: int = 0) -> None:
    writer = event_file.EventWriter(path, 1, floor)
    for _ in range(count):
        writer.append(PhaseChanged("training"))
    writer.close()


def all_of(feed: EventFeed, offset: int = 0) -> list[Event]:
    events: list[Event] = []
    more = True
    while more:
        chunk = feed.read(offset)
        events += chunk.events
        offset, more = chunk.end, chunk.more
    return events


def test_a_backlog_comes_in_chunks_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.log"
    write(path, 3 * CHUNK_EVENTS + 5)
    feed = EventFeed(path)
    assert [e.seq for e in all_of(feed)] == list(range(1, 3 * CHUNK_EVENTS + 6))
    assert feed.read(0) is feed.read(0), "watchers at one place share what was read"


def test_a_late_watcher_starts_near_its_place(tmp_path: Path) -> None:
    path = tmp_path / "events.log"
    write(path, 4 * CHUNK_EVENTS)
    feed = EventFeed(path)
    all_of(feed)
    start = feed.start(3 * CHUNK_EVENTS)
    assert next(e.seq for e in feed.read(start).events) == 3 * CHUNK_EVENTS + 1
    assert feed.start(0) == 0


def as_of_format(path: Path, number: int | None) -> None:
    """Rewrites the file with the header of a format; None: without one, as older versions did."""
    header, *lines = path.read_bytes().splitlines(keepends=True)
    if number is not None:
        data = json.dumps({**json.loads(header[9:]), "format": number}).encode()
        lines.insert(0, b"%08x %s\n" % (zlib.crc32(data), data))
    path.write_bytes(b"".join(lines))


def test_a_file_without_a_format_is_of_the_first_and_one_that_is_newer_is_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "events.log"
    write(path, 3)
    as_of_format(path, None)
    assert [event.seq for event in all_of(EventFeed(path))] == [1, 2, 3]
    write(path, 1)
    assert b"format" not in path.read_bytes(), "the header stands at the beginning or nowhere"
    path.unlink()
    write(path, 3)
    assert [event.seq for event in all_of(EventFeed(path))] == [1, 2, 3]
    as_of_format(path, event_file.FORMAT + 1)
    before = path.read_bytes()
    for act in (lambda: all_of(EventFeed(path)), lambda: write(path, 1)):
        with pytest.raises(Incompatible) as refused:
            act()
        assert refused.value.code == "file.newer"
        assert refused.value.args_by_name["path"] == str(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_told_as_it_was(tmp_path: Path, loss: float) -> None:
    path = tmp_path / "events.log"
    writer = event_file.EventWriter(path, 1)
    writer.append(Evaluated(7, 0, 7, loss, samples=3, best=False))
    writer.close()
    (event,) = all_of(EventFeed(path))
    assert isinstance(event.body, Evaluated) and event.body.step == 7
    assert repr(event.body.loss) == repr(loss)


def test_a_flipped_byte_and_a_torn_tail_are_named_and_the_rest_is_told(tmp_path: Path) -> None:
    path = tmp_path / "events.log"
    write(path, 5)
    data = bytearray(path.read_bytes())
    lines = data.split(b"\n")
    data[len(b"".join(lines[:3])) + 12] ^= 4  # in the third event, behind the header
    path.write_bytes(data + b"0000")
    events = all_of(EventFeed(path))
    assert [e.seq for e in events if e.seq] == [1, 2, 4, 5]
    assert [type(e.body) for e in events].count(Damaged) == 1
    write(path, 1)
    assert [e.seq for e in all_of(EventFeed(path)) if e.seq] == [1, 2, 4, 5, 6]


def test_a_writer_of_a_cut_file_or_a_restarted_machine_reuses_no_seq(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert seq_floor(run, seen=0, in_file=0) == 0
    assert seq_floor(run, seen=90, in_file=90) == 0
    assert seq_floor(run, seen=90, in_file=40) == 90
    write_launch(run, "train", 1, 7)
    assert seq_floor(run, seen=90, in_file=90) == 7
    run.launch.write_text(run.launch.read_text().replace('"boot_id": "', '"boot_id": "other-'))
    assert seq_floor(run, seen=90, in_file=90) == 90 + SEQ_BLOCK
    assert seq_floor(run, seen=91 + SEQ_BLOCK, in_file=91 + SEQ_BLOCK) == 90 + SEQ_BLOCK


def test_a_change_that_comes_while_a_watcher_is_busy_is_not_missed(tmp_path: Path) -> None:
    async def scenario() -> None:
        feed = EventFeed(tmp_path / "events.log")
        before = feed.changes
        write(tmp_path / "events.log", 1)
        feed.look()  # the watcher is sending its last batch meanwhile
        async with asyncio.timeout(60):
            await feed.changed(before)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await feed.changed(feed.changes)

    asyncio.run(scenario())


def test_what_lies_behind_a_damaged_range_of_any_length_is_delivered(tmp_path: Path) -> None:
    path = tmp_path / "events.log"
    write(path, 2)
    whole = path.stat().st_size
    with path.open("ab") as file:  # a power cut can leave a file's length without its content
        file.write(b"\0" * (2 * event_file.MAX_LINE_BYTES + 7) + b"\n")
    write(path, 2)
    first, second, damaged, third, fourth = all_of(EventFeed(path))
    assert [e.seq for e in (first, second, third, fourth)] == [1, 2, 3, 4]
    assert damaged.body == Damaged(whole, whole + 2 * event_file.MAX_LINE_BYTES + 7)

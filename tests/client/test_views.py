"""The live view: history, frames of every size, and the state of the terminal afterwards."""

from __future__ import annotations

import codecs
import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from unittest.mock import Mock

import pytest
from rich.console import Console
from rich.live import Live

from safetrain.cli import main
from safetrain.terminal import live_view
from safetrain.terminal.braille_curve import MARK, curve
from safetrain.terminal.live_frame import FrameData, frame
from safetrain.views.event_lines import describe
from safetrain.views.job import name_of, summary
from safetrain_proto.v1 import events_pb2
from safetrain_proto.v1.jobs_pb2 import JobRequest, ListJobsRequest, ListJobsResponse
from safetrain_shared import events, i18n
from safetrain_shared.errors import Unreachable
from safetrain_shared.findings import Finding, Status
from safetrain_shared.history import History
from safetrain_shared.jobs import JobState
from safetrain_shared.paths import Home
from safetrain_shared.wire import event_from_wire, fill
from tests.client.builders import (
    NOON,
    complete_run,
    evaluated_run,
    evaluation,
    event,
    job,
    plan,
    step,
)
from tests.client.fake import FakeDaemon

TIMEOUT = 20.0


def _history(messages: list[events_pb2.Event]) -> History:
    history = History()
    for message in messages:
        history.take(event_from_wire(message))
    return history


@pytest.fixture(autouse=True)
def _english() -> None:
    i18n.use("en")


def test_steps_that_ran_again_after_a_kill_count_once() -> None:
    first = [event(n, step(n, 9.0)) for n in range(1, 6)]
    again = [event(10 + n, step(n, 1.0), attempt=2) for n in range(3, 8)]
    history = _history(first + again)
    assert [s.step for s in history.steps] == [1, 2, 3, 4, 5, 6, 7]
    assert [s.loss for s in history.steps] == [9.0, 9.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert history.attempt == 2


def test_the_best_evaluation_is_the_last_that_was_called_best() -> None:
    losses = [(2.0, True), (1.0, True), (1.0, True), (3.0, False)]
    emitted = [event(n, _evaluated(n, loss, best)) for n, (loss, best) in enumerate(losses, 1)]
    history = _history(emitted)
    assert history.best is not None and history.best.step == 3


def _evaluated(step: int, loss: float, best: bool) -> events.Evaluated:
    return events.Evaluated(step, 0, step, loss, 9, best)


@pytest.mark.parametrize("size", [(80, 24), (120, 50), (40, 12), (20, 5)])
@pytest.mark.parametrize("lang", ["en", "pt"])
def test_a_frame_fills_its_screen_exactly(size: tuple[int, int], lang: str) -> None:
    i18n.use(lang)
    width, height = size
    waiting = job(2, JobState.QUEUED, queue_position=1, name="a name that goes on and on " * 3)
    lines = frame(FrameData(job(1), _history(complete_run()), [waiting], "", NOON), width, height)
    assert len(lines) == height
    assert max(line.cell_len for line in lines) <= width


def test_a_frame_of_80_by_24_tells_it_all_without_colour() -> None:
    shown = FrameData(job(1, name="farense"), _history(complete_run()[:-2]), [], "", NOON + 12)
    text = "\n".join(line.plain for line in frame(shown, 80, 24))
    for part in (
        "Job 1 farense · running",
        "30% · step 30 of 100 · epoch 1 of 3 · 2 min left",
        "training 1.0000",
        "validation 2.2500",
        "best 2.2500 at step 20",
        "0.0002 · 250 tokens/s",
        "3.0 GiB of 6.0 GiB",
        "checkpoint_epoch_0_step_20",
        "⚠",
        "3 samples were left out",
        "q leaves",
    ):
        assert part in text
    assert MARK in text and re.search(r"[\u2801-\u28ff]", text)


@pytest.mark.parametrize("size", [(60, 12), (80, 10), (40, 9)])
@pytest.mark.parametrize("lang", ["en", "pt"])
def test_the_losses_are_on_the_smallest_screen(size: tuple[int, int], lang: str) -> None:
    i18n.use(lang)
    lines = frame(FrameData(job(1), _history(complete_run()[:-2])), *size)
    text = "\n".join(line.plain for line in lines).replace(",", ".")
    assert "1.0000" in text and text.count("2.2500") == 2 and " 3.0 GiB" in text


def _top(shown: FrameData) -> str:
    return "\n".join(line.plain for line in frame(shown, 100, 24)[:4])


def test_a_waiting_job_tells_its_place_and_its_start() -> None:
    waiting = job(3, JobState.QUEUED, queue_position=2, start_eta_seconds=90)
    history = _history([event(1, events.StateChanged(JobState.QUEUED))])
    assert "Job 3 · queued · number 2 in the queue · starts in 2 min" in _top(
        FrameData(waiting, history)
    )
    running = _history([event(1, events.StateChanged(JobState.RUNNING))])
    assert "in the queue" not in _top(FrameData(waiting, running))


def test_a_job_that_is_checked_shows_what_is_done_and_what_it_will_train() -> None:
    checked = job(1, JobState.CHECKING, name="farense", phase="probing")
    checked.forecast.settings.batch_size = 4
    history = _history([event(1, events.StateChanged(JobState.CHECKING))])
    text = "\n".join(line.plain for line in frame(FrameData(checked, history), 80, 24))
    for part in (
        "Job 1 farense · checking · measuring real training steps",
        "demo",
        "/d/train.jsonl",
        "/out/1",
        "batch_size 4",
    ):
        assert part in text


def test_what_was_asked_of_a_job_is_told_until_it_is_done() -> None:
    asked = job(1, intent="pause")
    assert "will pause at the next step" in _top(FrameData(asked, _history(complete_run()[:-2])))
    assert "will pause" not in _top(FrameData(asked, _history(complete_run())))


def test_a_training_that_holds_says_why_as_long_as_it_does() -> None:
    why = Finding("train.holding", Status.WARNING, args={"footprint": 3 << 30, "swap": 1 << 30})
    holding = [event(10, events.PhaseChanged("holding")), event(11, events.Notice(why))]
    history = _history([*complete_run()[:-2], *holding])
    text = _top(FrameData(job(1), history))
    assert "· holding" in text and "⚠ Other programs need memory" in text
    whole = "\n".join(line.plain for line in frame(FrameData(job(1), history), 100, 24))
    assert whole.count("Other programs need memory") == 1
    history.take(event_from_wire(event(12, events.PhaseChanged("training"))))
    assert "The system is short" not in _top(FrameData(job(1), history))


def test_the_queue_that_does_not_answer_keeps_nobody_waiting() -> None:
    never = threading.Event()

    def silent(*_args: object, **_more: object) -> None:
        never.wait()
        raise Unreachable("daemon.unreachable", socket="")

    daemon = Mock(call=silent)
    reader = live_view._Reader(daemon, job(1), lambda _event: None)
    reader.is_alive = lambda: True  # type: ignore[method-assign]
    reader.queue.start()
    console = Console(file=io.StringIO(), width=80, height=24)
    with Live(console=console, auto_refresh=False) as screen:
        assert not live_view._show(reader, console, screen, lambda: "q", 1.0)
    never.set()


def test_the_live_view_asks_for_what_waits_and_for_its_own_job_alone() -> None:
    asked: list[object] = []

    def call(_method: object, request: object, **_more: object) -> object:
        asked.append(request)
        listed = isinstance(request, ListJobsRequest)
        return ListJobsResponse(jobs=[job(2)]) if listed else job(1, JobState.SUCCEEDED)

    queue = live_view._Queue(Mock(call=call), job(1))
    queue._fetch()
    assert asked == [ListJobsRequest(ended_limit=1), JobRequest(id=1)]
    assert name_of(queue.job) == "succeeded" and [one.id for one in queue.others] == [2]


def test_a_frame_before_the_first_event_shows_the_job() -> None:
    text = "\n".join(line.plain for line in frame(FrameData(job(1), History()), 80, 24))
    assert "Job 1 · running" in text and "no step yet" in text


def test_a_frame_of_a_long_story_that_has_not_come_yet_shows_how_far_the_job_is() -> None:
    halfway = job(1, step=50, total_steps=100)
    text = "\n".join(line.plain for line in frame(FrameData(halfway, History()), 80, 24))
    assert "50% · step 50 of 100" in text and "no step yet" not in text


def test_a_falling_curve_falls() -> None:
    rows = curve([(x, 10.0 - x) for x in range(11)], [], 40, 5)
    starts = [re.search(r"[\u2801-\u28ff]", row) for row in rows]
    positions = [match.start() for match in starts if match]
    assert len(positions) == 5 and positions == sorted(positions)


@pytest.mark.parametrize(
    "line", [[], [(1.0, 2.0)], [(1.0, float("nan")), (2.0, float("inf"))], [(0.0, 1.0), (0.0, 1.0)]]
)
def test_a_curve_of_hardly_any_points_is_no_error(line: list[tuple[float, float]]) -> None:
    assert len(curve(line, [], 40, 5)) == 5


def test_every_kind_of_event_has_a_line_in_both_languages() -> None:
    bodies = [event_from_wire(message) for message in evaluated_run()]
    bodies.append(event_from_wire(event(0, events.Damaged(10, 20))))
    kinds = {e.kind for e in bodies}
    assert kinds == set(events.KINDS)
    for lang in i18n.LANGUAGES:
        i18n.use(lang)
        assert all(describe(e) for e in bodies)
    assert describe(events.Event(1, 1, NOON, "unknown", None))


def test_the_verdict_stands_on_top_of_the_frame_and_of_the_status() -> None:
    history = History()
    for message in evaluated_run():
        history.take(event_from_wire(message))
    shown = job(1, JobState.SUCCEEDED)
    fill(shown.evaluation, evaluation())
    said = "62 of 100 questions more are answered rightly"
    for size in ((80, 24), (40, 8)):
        lines = [text.plain for text in frame(FrameData(shown, history, now=NOON), *size)]
        assert len(lines) == size[1] and any("62 of 100" in line for line in lines[:4])
    text = "\n".join(summary(shown))
    for part in (said, "overfitted", "30% → 28%", "0.21 nats", "checkpoint_epoch_0_step_40"):
        assert part in text, part


class Terminal:
    """`safetrain` in a real terminal of 80 × 24."""

    def __init__(self, *arguments: str, term: str = "xterm-256color") -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {**os.environ, "TERM": term}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "safetrain", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.seen = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def wait_for(self, condition: Callable[[str], bool]) -> str:
        """Reads until what was written so far meets the condition."""
        deadline = time.monotonic() + TIMEOUT
        while not condition(self.seen):
            left = deadline - time.monotonic()
            assert left > 0, self.seen
            if select.select([self.master], [], [], min(left, 0.1))[0]:
                self._read()
        return self.seen

    def _read(self) -> None:
        self.seen += self._decoder.decode(os.read(self.master, 1 << 16))

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def end(self) -> int:
        code = self.process.wait(TIMEOUT)
        while select.select([self.master], [], [], 0)[0]:
            self._read()
        assert termios.tcgetattr(self.slave) == self.before
        os.close(self.slave)
        os.close(self.master)
        return code


@pytest.fixture
def training(daemon: FakeDaemon) -> FakeDaemon:
    daemon.jobs = [job(1, name="farense")]
    daemon.events = complete_run()[:-2]
    return daemon


def test_q_leaves_the_live_view_and_the_job_goes_on(training: FakeDaemon) -> None:
    terminal = Terminal("watch")
    terminal.wait_for(lambda seen: "best 2.2500" in seen)
    terminal.type("q")
    assert terminal.end() == 0
    assert "\x1b[?1049h" in terminal.seen and "\x1b[?1049l" in terminal.seen
    assert "Job 1 goes on" in terminal.seen.rpartition("\x1b[?1049l")[2]


def test_ctrl_c_leaves_the_live_view_with_130(training: FakeDaemon) -> None:
    terminal = Terminal("watch")
    terminal.wait_for(lambda seen: "best 2.2500" in seen)
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert "Traceback" not in terminal.seen


def test_the_live_view_ends_with_the_job_and_leaves_its_last_picture(
    training: FakeDaemon,
) -> None:
    terminal = Terminal("watch")
    terminal.wait_for(lambda seen: "best 2.2500" in seen)
    training.events = complete_run()
    training.jobs = [job(1, JobState.FAILED)]
    training.ended.set()
    assert terminal.end() == 1
    assert "best 2.2500" in terminal.seen.rpartition("\x1b[?1049l")[2]


def test_the_live_view_goes_on_after_a_restart_of_the_daemon(training: FakeDaemon) -> None:
    terminal = Terminal("watch", "--refresh", "0.1")
    terminal.wait_for(lambda seen: "best 2.2500" in seen)
    training.stop()
    training.events = [*complete_run()[:-2], event(20, step(40, 0.5))]
    training.start()
    terminal.wait_for(lambda seen: "training 0.5000" in seen)
    terminal.type("q")
    assert terminal.end() == 0


def test_a_terminal_without_a_cursor_gets_lines(training: FakeDaemon) -> None:
    training.ended.set()
    training.jobs = [job(1, JobState.SUCCEEDED)]
    terminal = Terminal("watch", term="dumb")
    terminal.wait_for(lambda seen: "validation loss 2.2500" in seen)
    assert terminal.end() == 0
    assert "\x1b" not in terminal.seen


def test_no_color_leaves_out_colour(training: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal("watch")
    seen = terminal.wait_for(lambda seen: "best 2.2500" in seen)
    terminal.type("q")
    terminal.end()
    assert not re.search(r"\x1b\[[\d;]*3[0-7]m", seen)


def _piped(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "safetrain", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_reader_that_goes_away_is_no_error(training: FakeDaemon) -> None:
    process = _piped("watch")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    training.ended.set()
    training.events += [event(seq, step(seq)) for seq in range(20, 40)]
    assert process.wait(TIMEOUT) == 141
    assert process.stderr.read() == ""


def test_ctrl_c_outside_a_terminal_exits_130_without_a_traceback(training: FakeDaemon) -> None:
    process = _piped("watch")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT) == 130
    assert process.stderr is not None and "Traceback" not in process.stderr.read()


def test_a_defect_of_ours_is_a_sentence_and_exits_70(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("safetrain.autostart.answers", lambda home: 1 / 0)
    assert main(["jobs"]) == 70
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_planned_job_names_its_settings() -> None:
    text = describe(event_from_wire(event(1, events.Planned(plan(batch_size=2)))))
    assert text == "planned: batch_size 2 × 1, 512 tokens"

"""What happened while nobody looked, in one sentence: pure, and in what the commands say."""

from __future__ import annotations

import re

from safetrain.views.interruptions import interruptions
from safetrain_shared import i18n
from safetrain_shared.events import Event, StateChanged
from safetrain_shared.findings import Finding
from safetrain_shared.history import history
from safetrain_shared.jobs import JobState as S

HOUR = 3600.0
CLOCK = r"\d\d:\d\d:\d\d"


def night(*changes: tuple[S, str]) -> str:
    """The sentence of a story with a change of state every hour."""
    events = [
        Event(n, 1, n * HOUR, "state_changed", StateChanged(state, Finding(code) if code else None))
        for n, (state, code) in enumerate(changes, 1)
    ]
    return re.sub(CLOCK, "00:00:00", interruptions(history(events)))


def test_a_quiet_night_is_not_worth_a_sentence() -> None:
    assert night((S.QUEUED, ""), (S.RUNNING, ""), (S.SUCCEEDED, "")) == ""


def test_each_kind_of_trouble_is_named_once_with_its_count() -> None:
    panic = [(S.INTERRUPTED, "job.kernel_panic"), (S.RUNNING, "")]
    rest = [(S.INTERRUPTED, "train.segment"), (S.RUNNING, "")]
    assert night((S.RUNNING, ""), *panic, *rest * 3) == (
        "Interrupted on the way: kernel panic (00:00:00), rest between segments (3 times, last "
        "00:00:00). It went on by itself."
    )
    assert night((S.RUNNING, ""), *panic, (S.SUCCEEDED, "")) == (
        "Interrupted on the way: kernel panic (00:00:00). It went on by itself and ended at "
        "00:00:00."
    )


def test_what_is_interrupted_now_goes_on_by_itself() -> None:
    assert night((S.RUNNING, ""), (S.INTERRUPTED, "train.memory_short")) == (
        "Interrupted: other programs needed the memory (00:00:00). It goes on by itself."
    )


def test_a_cause_of_a_newer_version_is_an_interruption() -> None:
    said = night((S.RUNNING, ""), (S.INTERRUPTED, "job.unheard_of"), (S.RUNNING, ""))
    assert said.startswith("Interrupted on the way: interruption (00:00:00)")


def test_it_is_said_in_portuguese() -> None:
    with i18n.using("pt"):
        said = night((S.RUNNING, ""), (S.INTERRUPTED, "job.gpu_watchdog"))
    assert said == "Interrompido: watchdog do ecrã (00:00:00). Continua sozinho."

"""The ranks of a training as text."""

from __future__ import annotations

import pytest

from safetrain.views.ranks import rank_lines
from safetrain_proto.v1.jobs_pb2 import Rank


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFETRAIN_LANG", "en")


def test_a_rank_that_waits_names_the_one_it_waits_for() -> None:
    waiting = Rank(number=0, state="waiting", step=11, step_seconds=0.5, wait_seconds=0.25)
    busy = Rank(number=1, state="computing", footprint=1 << 30, silent_seconds=42)
    assert rank_lines([waiting, busy]) == [
        ("rank 0", "waiting for rank 1 · step 12: 0.50 s, and 0.25 s waiting"),
        ("rank 1", "computing · 1.0 GiB · silent for 42 s"),
    ]


def test_all_that_wait_wait_for_nobody_in_particular() -> None:
    ranks = [Rank(number=n, state="waiting") for n in range(2)]
    assert rank_lines(ranks) == [("rank 0", "waiting"), ("rank 1", "waiting")]
    assert rank_lines([Rank(number=0), Rank(number=1, state="loading")]) == [
        ("rank 0", "starting"),
        ("rank 1", "loading the model"),
    ]


def test_a_rank_on_another_machine_is_called_by_its_name() -> None:
    ranks = [Rank(number=0, state="waiting"), Rank(number=1, state="computing", machine="mini")]
    assert rank_lines(ranks) == [("rank 0", "waiting for mini"), ("mini", "computing")]

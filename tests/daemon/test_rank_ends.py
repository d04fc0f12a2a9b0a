"""What is made of the heartbeats and the ends of ranks; pure."""

from __future__ import annotations

from safetraind.controller.rank_folders import end_to_blame
from safetraind.processes.rank_watch import END_SECONDS, START_SECONDS, hang
from safetraind.storage.run_folder import Beat, KeeperNote


def beat(state: str = "waiting", time: float = 100.0, patience: float = 30.0) -> Beat:
    return Beat(state, time, patience, step=7)


def test_ranks_hang_once_the_patience_of_each_is_over() -> None:
    waiting, evaluating = beat(), beat("evaluating", patience=3600)
    assert hang([waiting, waiting], 129, 0) is None
    found = hang([waiting, waiting], 131, 0)
    assert found is not None and found.code == "job.ranks_stuck"
    assert hang([evaluating, waiting], 3000, 0) is None
    late = hang([waiting, beat("computing", time=99)], 131, 0)
    assert late is not None and (late.code, late.args["late"]) == ("job.ranks_hung", "1")
    assert (late.args["seconds"], late.args["step"]) == (31, 7)


def test_a_rank_that_never_began_hangs_too() -> None:
    assert hang([None, None], START_SECONDS, 1) is None
    found = hang([beat(), None], START_SECONDS + 40, 1)
    assert found is not None and found.args["late"] == "1"


def test_the_others_must_follow_the_end_of_rank_0() -> None:
    ended = [beat("ended"), beat("computing", patience=3600)]
    assert hang(ended, 100 + END_SECONDS, 0) is None
    assert hang(ended, 101 + END_SECONDS, 0) is not None


def test_the_rank_to_blame_is_the_first_that_ended_by_itself() -> None:
    killed = KeeperNote(signal=9, ended=5.0)
    crashed = KeeperNote(code=1, ended=4.0)
    left = KeeperNote(code=7, ended=3.0)
    followed = KeeperNote(signal=9, ended=2.0, peer=1)
    refused = KeeperNote(ended=1.0)
    assert end_to_blame([left, killed])[0] == 1
    assert end_to_blame([followed, killed])[0] == 1
    assert end_to_blame([crashed, killed])[0] == 0
    assert end_to_blame([followed, refused])[0] == 1, "it ended in order, before its time"
    assert end_to_blame([left, None])[0] == 1, "its keeper was killed too"
    assert end_to_blame([refused, left])[0] == 1, "they never met"
    assert end_to_blame([None]) == (0, None)
    assert end_to_blame([refused]) == (0, refused)

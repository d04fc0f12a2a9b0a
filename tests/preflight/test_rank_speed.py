"""How fast several ranks train; pure arithmetic."""

from __future__ import annotations

import pytest

from safetraind.rank_speed import bytes_sent, ring_seconds, speedup, speedup_of_machines


def test_two_ranks_send_the_vector_once_and_many_nearly_twice() -> None:
    assert bytes_sent(100, 2) == 100
    assert bytes_sent(100, 8) == 175
    assert bytes_sent(100, 1) == 0


def test_a_sum_takes_the_time_of_its_bytes_and_of_its_messages() -> None:
    assert ring_seconds(1e9 / 8, 2, bits_per_second=1e9, latency=0) == pytest.approx(1)
    assert ring_seconds(0, 4, bits_per_second=1e9, latency=0.001) == pytest.approx(0.006)


def test_what_the_sum_takes_is_lost_from_the_speed_up() -> None:
    assert speedup(1.0, 4, 0.0) == pytest.approx(4)
    assert speedup(1.0, 4, 0.25) == pytest.approx(2)
    assert speedup(1.0, 2, 0.5) == pytest.approx(1), "communication eats it"


def test_the_slowest_share_decides_over_machines() -> None:
    assert speedup_of_machines([1.0, 1.0], [2.0, 2.0], 0.0) == 2.0
    assert speedup_of_machines([1.0, 4.0], [2.0, 8.0], 0.0) == 0.5, "an unequal pair"
    assert speedup_of_machines([1.0, 1.0], [2.0, 2.0], 1.0) == 1.0, "a slow link"

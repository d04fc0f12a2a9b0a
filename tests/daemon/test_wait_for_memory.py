"""When a job that left for memory is started again."""

from __future__ import annotations

import pytest

from safetraind.controller.wait_for_resources import Calm
from safetraind.host import HostFacts, Pressure

GB = 1 << 30


def machine(pressure: Pressure, *, free: int = 8 * GB, swap: int = 0) -> HostFacts:
    return HostFacts(
        "Darwin", memory_total=16 * GB, memory_free=free, swap_used=swap, pressure=pressure
    )


def looks(calm: Calm, *readings: HostFacts) -> int:
    """The number of readings until it is calm, 0 where it never was."""
    return next((n for n, each in enumerate(readings, 1) if calm.look(each)), 0)


@pytest.mark.parametrize(
    ("pressure", "needed"),
    [(Pressure.NORMAL, 5), (Pressure.WARNING, 31), (Pressure.CRITICAL, 0)],
)
def test_a_constant_warning_is_calm_after_a_minute_and_critical_never(
    pressure: Pressure, needed: int
) -> None:
    """The first look at a warning tells how much is swapped, the other thirty that it stays so."""
    assert looks(Calm(GB), *[machine(pressure, swap=GB)] * 100) == needed


def test_swap_that_grows_at_a_warning_is_never_calm() -> None:
    growing = [machine(Pressure.WARNING, swap=n << 20) for n in range(1, 100)]
    assert not looks(Calm(GB), *growing)


def test_pressure_and_lack_of_memory_begin_the_wait_anew() -> None:
    calm = machine(Pressure.NORMAL)
    for other in (machine(Pressure.CRITICAL), machine(Pressure.NORMAL, free=GB // 2)):
        assert looks(Calm(GB), *[calm] * 4, other, *[calm] * 9) == 10

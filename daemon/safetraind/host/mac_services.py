"""Tests of the macOS services that a training relies on: pressure level, launchd, staying awake."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import psutil

from safetrain_shared.findings import Finding, Status
from safetraind.host import macos
from safetraind.host.awake import stay_awake
from safetraind.host.host_facts import Pressure

_ASSERTIONS = ("/usr/bin/pmset", "-g", "assertions")
_AWAKE_SECONDS = 30.0


def mac_services(
    run: macos.Run = macos.run, pressure: Callable[[], Pressure] = macos.pressure
) -> list[Finding]:
    """Return one finding for each service; empty on other systems."""
    if sys.platform != "darwin":
        return []
    level = pressure()
    args: dict[str, str | int] = {"level": str(level), "swap": int(psutil.swap_memory().used)}
    launchd = ("/bin/launchctl", "print", f"gui/{os.getuid()}")
    with stay_awake(_AWAKE_SECONDS):
        awake = _holds_sleep_off(run(_ASSERTIONS))
    return [
        _verdict(
            level is not Pressure.UNKNOWN, "selftest.pressure", "selftest.no_pressure", **args
        ),
        _verdict(bool(run(launchd)), "selftest.launchd", "selftest.no_launchd"),
        _verdict(awake, "selftest.awake", "selftest.not_awake"),
    ]


def _holds_sleep_off(text: str) -> bool:
    """Return whether `pmset -g assertions` shows a caffeinate that holds off the sleep of an idle
    Mac.
    """
    lines: Sequence[str] = text.splitlines()
    return any("caffeinate" in line and "PreventUserIdleSystemSleep" in line for line in lines)


def _verdict(good: bool, passed: str, failed: str, **args: str | int) -> Finding:
    status = Status.PASSED if good else Status.FAILED
    return Finding(passed if good else failed, status, args=args)

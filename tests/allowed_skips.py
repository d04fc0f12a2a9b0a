"""Every skip is listed with its reason at the end; under CI one that is not in ALLOWED fails.

A skip means that something goes untested on that machine. So each has its place here, with the file
and the reason that it gives.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

ALLOWED = frozenset(
    {
        # Without root there is no mounting, no memory controller, and no file of another user.
        ("tests/trainer/test_full_disk.py", "mounting a small file system is not allowed here"),
        ("tests/daemon/test_wait_for_resources.py", "mounting a small disk is not allowed here"),
        ("tests/daemon/test_wait_for_resources.py", "mounting is not allowed here"),
        ("tests/daemon/test_memory_pressure.py", "no memory controller can be written here"),
        ("tests/daemon/test_out_of_memory.py", "no memory controller can be written here"),
        ("tests/client/test_connection.py", "only root can give a file away"),
        ("tests/remote/test_two_users.py", "only root can make a second user"),
        # lm-evaluation-harness brings forty packages, which no other test needs.
        ("tests/evaluation/test_harness.py", "the extra tasks is not installed here"),
        # Sockets of another process are lent by Linux alone, and on some systems to root alone.
        ("tests/daemon/test_ranks.py", "only Linux lends the sockets of another process"),
        ("tests/daemon/test_ranks.py", "this system lends no sockets of another process"),
        # What only Linux, or only some of its distributions, have.
        ("tests/daemon/test_agent.py", "no systemd-analyze here"),
        ("tests/daemon/test_worker_exit.py", "the kernel counts its kills on Linux alone"),
    }
)


def _skips(config: pytest.Config) -> Iterator[tuple[str, str]]:
    """The file and the reason of each skip, those of all workers of xdist together."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    for report in reporter.stats.get("skipped", []) if reporter else []:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        yield report.nodeid.partition("::")[0], reason.removeprefix("Skipped: ")


def _refused(config: pytest.Config) -> list[tuple[str, str]]:
    return sorted(set(_skips(config)) - ALLOWED) if os.environ.get("CI") else []


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Fails an otherwise green run of CI that skipped what it may not."""
    if session.exitstatus == pytest.ExitCode.OK and _refused(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return (yield)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Lists the skips."""
    found = list(_skips(config))
    if not found:
        return
    terminalreporter.section("skipped")
    for skip in sorted(set(found)):
        terminalreporter.line(f"{found.count(skip)} in {skip[0]}: {skip[1]}")
    for file, _ in _refused(config):
        terminalreporter.line(f"FAILED {file}: not in tests/allowed_skips.py", red=True)

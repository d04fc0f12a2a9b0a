"""No log grows without an end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from safetrain_shared.paths import RunFolder
from safetraind import app
from safetraind.processes import keeper
from safetraind.processes.supervisor import write_launch
from tests.daemon.test_faults import command
from tests.harness import DaemonProcess


def test_the_daemons_log_rotates(tmp_path: Path) -> None:
    """In a process of its own: logging belongs to the whole process."""
    script = (
        "import logging, pathlib, sys\n"
        "from safetraind import app\n"
        "app._log_to(pathlib.Path(sys.argv[1]))\n"
        "for n in range(30_000): logging.info('%d %s', n, 'x' * 1000)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "daemon.log")], check=True)
    files = sorted(tmp_path.iterdir())
    assert [f.name for f in files] == ["daemon.log", *(f"daemon.log.{n}" for n in (1, 2, 3))]
    assert all(0 < file.stat().st_size <= app._LOG_BYTES for file in files)
    assert " 29999 " in files[0].read_text().splitlines()[-1]


def test_what_launchd_writes_down_is_emptied_once_it_is_large(home: Path) -> None:
    home.mkdir(mode=0o700)
    output = home / "daemon.out"
    output.write_bytes(b"x" * (app._LOG_BYTES + 1))
    daemon = DaemonProcess(home)
    try:
        daemon.start()
        assert output.stat().st_size == 0
        output.write_bytes(b"kept")
        daemon.terminate()
        daemon.start()
        assert output.read_bytes() == b"kept"
    finally:
        daemon.end()


def test_a_workers_log_is_cut_to_its_newest_part_and_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    writer = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    line = b"%08d " + b"x" * 990 + b"\n"
    lines = keeper._LOG_BYTES // 1000 + 10
    for n in range(lines):
        os.write(writer, line % n)
    keeper._bound(log)
    os.write(writer, line % lines)
    os.close(writer)
    kept = log.read_bytes().splitlines()
    assert log.stat().st_size <= keeper._LOG_KEPT + 1000
    numbers = [int(text.split()[0]) for text in kept]
    assert numbers == list(range(numbers[0], lines + 1))
    before = log.stat().st_size
    keeper._bound(log)
    assert log.stat().st_size == before


def test_an_attempt_begins_with_a_small_log(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_launch(run, "train", 2, 0)
    run.log.write_bytes(b"of attempt 1\n" * (keeper._LOG_BYTES // 12))
    words = [sys.executable, "-I", "-S", keeper.__file__, str(tmp_path), "train"]
    with run.log.open("ab") as log:
        subprocess.run([*words, "/bin/echo", "of attempt 2"], stdout=log, check=True)
    assert run.log.stat().st_size < 2 * keeper._LOG_KEPT
    assert run.log.read_text().splitlines()[-1].startswith("of attempt 2")
    assert json.loads(run.exit.read_text())["code"] == 0


def test_no_line_at_all_can_be_asked_for(home: Path) -> None:
    home.mkdir()
    (home / "daemon.log").write_text("one\ntwo\nthree\n")
    daemon = DaemonProcess(home)
    assert command(daemon, "logs", "-n", "0").stdout == ""
    assert command(daemon, "logs", "-n", "2").stdout == "two\nthree\n"
    assert command(daemon, "logs", "-n", "-1").returncode == 2

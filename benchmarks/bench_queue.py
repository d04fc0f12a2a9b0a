"""`python -m benchmarks.bench_queue`: what listing jobs costs, by how many wait and have ended.

A real safetraind whose database is filled with copies of one job. `List` is called over its socket,
after a first call that reads every event file; meanwhile another client calls `Info`, whose longest
wait is what everybody else feels. `status` is the command, its start included. Memory is the
daemon's resident set. The ratios are to the first size.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from safetrain_proto.v1 import jobs_pb2
from safetrain_shared.jobs import JobSpec
from tests.daemon.conftest import PLAY
from tests.harness import DaemonProcess

REPORT = Path("reports/queue.json")
SIZES = ((10, 0), (100, 0), (300, 0), (1000, 0), (1000, 5000))
_ROUNDS = 5


def main() -> int:
    """Prints a line for each size and writes the report."""
    rows = []
    for waiting, ended in SIZES:
        with tempfile.TemporaryDirectory() as name:
            row = _measured(Path(name), waiting, ended)
        rows.append(row)
        for what in ("list", "status", "info_longest", "memory"):
            unit = "mb" if what == "memory" else "seconds"
            row[f"{what}_ratio"] = round(row[f"{what}_{unit}"] / rows[0][f"{what}_{unit}"], 1)
        print(json.dumps(row), flush=True)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def _measured(folder: Path, waiting: int, ended: int) -> dict[str, float]:
    daemon = DaemonProcess(folder / "home", PLAY)
    try:
        _fill(daemon, folder, waiting, ended)
        daemon.start()
        first = _list(daemon, 0)
        times = [_list(daemon, 0) for _ in range(_ROUNDS)]
        short = [_list(daemon, 20) for _ in range(_ROUNDS)]
        status = [_status(daemon) for _ in range(_ROUNDS)]
        longest = _longest_wait(daemon)
        assert daemon.process is not None
        memory = psutil.Process(daemon.process.pid).memory_info().rss
    finally:
        daemon.end()
    return {
        "waiting": waiting,
        "ended": ended,
        "first_seconds": round(first, 4),
        "list_seconds": round(statistics.median(times), 4),
        "newest_20_seconds": round(statistics.median(short), 4),
        "status_seconds": round(statistics.median(status), 4),
        "info_longest_seconds": round(longest, 4),
        "memory_mb": round(memory / 2**20, 1),
    }


def _fill(daemon: DaemonProcess, folder: Path, waiting: int, ended: int) -> None:
    """One job that has ended, one that stays paused, and copies: the queue waits for that one."""
    model = folder / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer_config.json", "model.safetensors"):
        (model / name).write_text("{}")
    for name in ("train.jsonl", "valid.jsonl"):
        (folder / name).write_text('{"text": "olá"}\n')
    daemon.start()
    for name, play in (("one", "pace=0"), ("two", "check=600")):
        paths = (str(model), str(folder / "train.jsonl"), str(folder / "valid.jsonl"))
        job = daemon.submit(JobSpec(*paths, str(folder / name), name=play)).job
        if name == "one":
            daemon.wait_for_state(job.id)
    daemon.jobs.Pause(jobs_pb2.JobRequest(id=2))
    daemon.terminate()
    runs = daemon.home.root / "runs"
    with sqlite3.connect(daemon.home.database) as db:
        db.row_factory = sqlite3.Row
        rows = [dict(row) for row in db.execute("SELECT * FROM jobs ORDER BY id")]
        for number in range(3, 3 + ended + waiting):
            row = rows[0] if number < 3 + ended else {**rows[1], "state": "queued", "after": 2}
            row = {**row, "id": number, "position": number, "output": f"{folder}/{number}"}
            marks = ", ".join("?" * len(row))
            names = ", ".join(row)
            db.execute(f"INSERT INTO jobs ({names}) VALUES ({marks})", tuple(row.values()))
            shutil.copytree(runs / ("1" if number < 3 + ended else "2"), runs / str(number))
    db.close()


def _list(daemon: DaemonProcess, limit: int) -> float:
    begun = time.perf_counter()
    daemon.jobs.List(jobs_pb2.ListJobsRequest(ended_limit=limit), timeout=120)
    return time.perf_counter() - begun


def _status(daemon: DaemonProcess) -> float:
    command = [sys.executable, "-m", "safetrain", "status"]
    begun = time.perf_counter()
    subprocess.run(
        command,
        env={**os.environ, "SAFETRAIN_HOME": str(daemon.home.root)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - begun


def _longest_wait(daemon: DaemonProcess) -> float:
    """Of calls of `Info` while three lists of all are made."""
    lists = [threading.Thread(target=_list, args=(daemon, 0)) for _ in range(3)]
    for one in lists:
        one.start()
    longest = 0.0
    while any(one.is_alive() for one in lists):
        begun = time.perf_counter()
        daemon.info()
        longest = max(longest, time.perf_counter() - begun)
    return longest


if __name__ == "__main__":
    sys.exit(main())

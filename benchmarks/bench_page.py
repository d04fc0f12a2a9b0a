"""`python -m benchmarks.bench_page`: how soon the page stands, and what it costs a training.

A real safetraind with 5,000 ended jobs, one of them with 100,000 events, and headless Chromium. The
first paint of each page is compared with that of a page that only says that there is no such job.
Then a tab follows a training: the dashboard's CPU time is compared with the worker's.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.cli import machine
from tests.browser import OPTIONS, executable
from tests.dashboard.conftest import Served
from tests.harness import DaemonProcess

REPORT = Path("reports/page.json")
ENDED, EVENTS = 5000, 100_000
MOST_CPU_SHARE = 0.01
_ROUNDS = 7
_SECONDS = 20.0  # of a training that is followed
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
_NOW = "performance.now()"


def main() -> int:
    """Print the figures and write the report; 0 where the share of the CPU is kept."""
    with tempfile.TemporaryDirectory() as name, machine.running(Path(name)) as daemon:
        told = machine.told(daemon, Path(name), EVENTS)
        _fill(daemon, told)
        with sync_playwright() as playwright:
            path = executable(playwright)
            browser = playwright.chromium.launch(executable_path=path, args=OPTIONS)
            served = Served(home=daemon.home)
            try:
                found = _paints(browser, served, told)
                found["cpu_share"] = _cpu_share(browser, served, daemon, Path(name))
            finally:
                served.end()
                browser.close()
    print(json.dumps(found, indent=1))
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(found, indent=1) + "\n")
    return int(found["cpu_share"] > MOST_CPU_SHARE)


def _fill(daemon: DaemonProcess, ended: int) -> None:
    """Add copies of the ended job, with short stories of their own."""
    daemon.terminate()
    runs = daemon.home.root / "runs"
    short = runs / "short"
    shutil.copytree(runs / str(ended), short, ignore=shutil.ignore_patterns("events.log"))
    with sqlite3.connect(daemon.home.database) as db:
        db.row_factory = sqlite3.Row
        one = dict(db.execute("SELECT * FROM jobs WHERE id = ?", (ended,)).fetchone())
        for number in range(ended + 1, ended + ENDED):
            row = {**one, "id": number, "position": number, "output": f"{one['output']}-{number}"}
            names, marks = ", ".join(row), ", ".join("?" * len(row))
            db.execute(f"INSERT INTO jobs ({names}) VALUES ({marks})", tuple(row.values()))
            shutil.copytree(short, runs / str(number))
    db.close()
    shutil.rmtree(short)
    daemon.start()


def _paints(browser: Browser, served: Served, told: int) -> dict[str, float]:
    """Return milliseconds to the first paint, and to the curves, and ratios to an empty page."""
    page = browser.new_page()
    page.goto(served.url)
    page.wait_for_url("**/")
    base = f"http://{served.host}"
    places = {"empty": "/jobs/999999", "jobs_5000": "/", "events_100000": f"/jobs/{told}"}
    page.goto(base + places["events_100000"])
    page.locator("#chart-loss canvas").wait_for(timeout=120_000)  # the events are read once
    found: dict[str, float] = {}
    times: dict[str, list[float]] = {name: [] for name in (*places, "curves_100000")}
    for _round in range(_ROUNDS):
        for name, path in places.items():
            page.goto(base + path)
            times[name].append(_until_painted(page))
            if name == "events_100000":
                page.locator("#chart-loss canvas").wait_for()
                times["curves_100000"].append(float(page.evaluate(_NOW)))
    page.close()
    for name, values in times.items():
        found[f"{name}_ms"] = round(statistics.median(values), 1)
        found[f"{name}_ratio"] = round(found[f"{name}_ms"] / found["empty_ms"], 2)
    return found


def _until_painted(page: Page) -> float:
    page.locator("main").wait_for()
    while page.evaluate("performance.getEntriesByName('first-contentful-paint').length") == 0:
        page.wait_for_timeout(10)
    return float(page.evaluate(_PAINT))


def _cpu_share(browser: Browser, served: Served, daemon: DaemonProcess, folder: Path) -> float:
    """Return the dashboard's CPU time by the worker's, while one tab follows a training."""
    job = machine.training(daemon, folder)
    page = browser.new_page()
    page.goto(served.url)
    page.wait_for_url("**/")
    page.goto(f"http://{served.host}/jobs/{job}")
    page.locator("#chart-loss canvas").wait_for()
    assert daemon.process is not None
    children = psutil.Process(daemon.process.pid).children(recursive=True)
    worker = max(children, key=lambda one: one.cpu_times().user)
    dashboard = psutil.Process(served.process.pid)
    before = _used(dashboard), _used(worker)
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        page.wait_for_timeout(500)
    page.close()
    return round((_used(dashboard) - before[0]) / (_used(worker) - before[1]), 4)


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    sys.exit(main())

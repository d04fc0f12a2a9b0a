"""A headless Chromium for the tests of pages: from the PATH, or the one that playwright installs.

`python -m tests.browser` prints which one; its exit code is 1 where there is none.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ["--disable-background-networking", "--disable-gpu", "--disable-quic"]
expect.set_options(timeout=60_000)  # milliseconds: the machine may be busy


def executable(playwright: Playwright) -> str | None:
    """The path of the browser; None where there is none."""
    own = playwright.chromium.executable_path
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return found or (own if Path(own).exists() else None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser a module. Not for longer: no asyncio loop can run in a test meanwhile."""
    with sync_playwright() as playwright:
        path = executable(playwright)
        if path is None:
            pytest.skip("no Chromium here")
        started = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        yield started
        started.close()


if __name__ == "__main__":
    with sync_playwright() as driver:
        print(path := executable(driver))
        sys.exit(path is None)

"""Takes the images in docs/images from a running job: `python scripts/pictures.py`.

The terminal is a real one (tmux), the browser headless Chromium. SAFETRAIN_HOME names the home.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
SAFETRAIN = str(Path(sys.executable).with_name("safetrain"))
COLUMNS, ROWS = 92, 26
WINDOW = {"width": 1100, "height": 800}
PHONE = {"width": 390, "height": 844}
TMUX = ("tmux", "-L", f"safetrain-pictures-{os.getpid()}")


def terminal(lang: str) -> None:
    """Write `safetrain watch` on a terminal of 92 × 26, as SVG."""
    command = f"TERM=xterm-256color {SAFETRAIN} watch --lang {lang}"
    size = ("-x", str(COLUMNS), "-y", str(ROWS))
    subprocess.run([*TMUX, "new-session", "-d", *size, command], check=True)
    try:
        shown = _settled()
    finally:
        subprocess.run([*TMUX, "kill-server"], check=True)
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(Text.from_ansi(shown), no_wrap=True)
    svg = console.export_svg(title="safetrain watch", theme=MONOKAI)
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # no web fonts
    (IMAGES / f"watch-{lang}.svg").write_text(svg, encoding="utf-8")


def _settled() -> str:
    """Return the pane's content once it shows a curve; fails after twenty seconds."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        capture = [*TMUX, "capture-pane", "-e", "-p"]
        shown = subprocess.run(capture, check=True, capture_output=True, text=True).stdout
        if "loss" in shown and "│" in shown:
            return shown
        time.sleep(0.1)
    raise SystemExit("no job at work has a curve to show")


def dashboard(lang: str) -> None:
    """Write the page of the job at work, else of the newest, as PNG."""
    with _page() as page, _served(lang) as url:
        _job(page, url)
        page.screenshot(path=IMAGES / f"dashboard-{lang}.png")


def job(lang: str) -> None:
    """Write the page of the job at work at both widths, as PNG."""
    with _page() as page, _served(lang) as url:
        _job(page, url)
        _at_both_widths(page, "job", lang)


def after(lang: str) -> None:
    """Write the end of the newest training at both widths, as PNG."""
    with _page() as page, _served(lang) as url:
        _job(page, url)
        page.locator(".verdict summary").click()
        page.locator("#won-lost li").first.wait_for()
        _at_both_widths(page, "after", lang, ".verdict")


def begin(lang: str) -> None:
    """Write Begin with the sample data and the demo model (it is here) at both widths, as PNG."""
    with _page() as page, _served(lang) as url:
        _sample(page, url)
        _at_both_widths(page, "begin", lang, "#step-data")


def check(lang: str) -> None:
    """Write the check of the same, all sections of which are there, at both widths, as PNG."""
    with _page() as page, _served(lang) as url:
        _sample(page, url)
        page.locator("#step-check ~ button").click()
        page.locator("#outcome .outcome").wait_for(timeout=300_000)
        _at_both_widths(page, "check", lang, "#step-check")


def both(lang: str) -> None:
    """Write base and adapter of the newest training side by side at both widths, as PNG."""
    with _page() as page, _served(lang) as url:
        _job(page, url)
        page.locator("#both-question").fill("Qual foi a melhor classificação do Farense?")
        for side in ("base", "adapter"):
            speed = page.locator(f"#{side}-state", has_text="tokens/s")
            speed.wait_for(timeout=120_000)
        _at_both_widths(page, "both", lang, "#both-title", end=".both")


def talk(lang: str) -> None:
    """Write two turns of a conversation with the newest training at both widths, as PNG."""
    with _page() as page, _served(lang) as url:
        _job(page, url)
        for number, question in enumerate(
            ("Qual foi a melhor classificação do Farense?", "E quando?")
        ):
            page.locator("#question").fill(question)
            page.keyboard.press("Enter")
            hint = page.locator(".exchange .hint").nth(number)
            hint.filter(has_text="tokens/s").wait_for(timeout=120_000)
        _at_both_widths(page, "talk", lang, ".exchange", end="#question")


def export(lang: str) -> None:
    """Write an export of the newest training, done, at both widths, as PNG."""
    folder = "~/farense-model"
    with _page() as page, _served(lang) as url:
        _job(page, url)
        page.locator("input[name=output]").fill(folder)
        page.locator("select[name=gguf_type]").select_option("q8_0")
        page.locator("form:has(input[name=output]) button").click()
        page.locator("#exporting .exported").wait_for(timeout=300_000)
        _at_both_widths(page, "export", lang, "form:has(input[name=output])", end="#exporting")
    shutil.rmtree(Path(folder).expanduser())


def _sample(page: Page, url: str) -> None:
    """Open Begin, and take the demo model and the sample data."""
    page.goto(url)
    page.wait_for_url(re.compile(r"/(begin)?$"))
    page.locator(".stations a").first.click()
    page.locator("input[value=demo]").check()
    page.locator(".point button.plain").click()
    page.locator("#samples mark").first.wait_for(timeout=120_000)


def _job(page: Page, url: str) -> None:
    page.goto(url)
    page.locator("#chart-loss canvas").wait_for()
    page.wait_for_timeout(1500)  # one round of live figures


def _at_both_widths(page: Page, name: str, lang: str, top: str = "", end: str = "") -> None:
    """Write a station as `page-NAME-LANG.png` and `page-NAME-phone-LANG.png`, from `top` down; that
    of a phone ends with `end` where one is named.
    """
    for suffix, size in (("", WINDOW), ("-phone", PHONE)):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        page.wait_for_timeout(500)  # the curves are drawn anew
        page.evaluate("scrollTo(0, 0)")
        place = page.locator(top).first.bounding_box() if top else None
        page.evaluate("y => scrollTo(0, y)", max(0, place["y"] - 16) if place else 0)
        if end and size is PHONE:
            page.locator(end).evaluate("it => it.scrollIntoView({ block: 'end' })")
        page.screenshot(path=IMAGES / f"page-{name}{suffix}-{lang}.png")


def report(lang: str) -> None:
    """Write the top of the report, as PNG."""
    with _page() as page, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        arguments = ["report", "--lang", lang, "--output", str(file)]
        subprocess.run([SAFETRAIN, *arguments], check=True)
        page.goto(file.as_uri())
        page.screenshot(path=IMAGES / f"report-{lang}.png")


@contextmanager
def _page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        flags = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        started = playwright.chromium.launch(executable_path=found, args=flags)
        yield started.new_page(viewport=WINDOW)  # type: ignore[arg-type]
        started.close()


@contextmanager
def _served(lang: str) -> Iterator[str]:
    command = [SAFETRAIN, "dashboard", "--port", "0", "--json", "--lang", lang]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield str(json.loads(server.stdout.readline())["url"])
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Take both languages of each image, or of those named: terminal, dashboard, report, begin,
    check, job (one is at work), after, both, talk, export (one has ended with a verdict).
    """
    pictures = {
        "terminal": terminal,
        "dashboard": dashboard,
        "report": report,
        "begin": begin,
        "check": check,
        "job": job,
        "after": after,
        "both": both,
        "talk": talk,
        "export": export,
    }
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or pictures:
        for lang in ("en", "pt"):
            pictures[name](lang)


if __name__ == "__main__":
    main()

"""From a CSV file to a verdict, a promoted checkpoint, an export and a conversation, in Chromium.

Once by mouse in English, once by keyboard alone in Portuguese: each language sees every station. A
real daemon trains a tiny model, or the one in the folder `SAFETRAIN_JOURNEY_MODEL`. Axe looks at
each station, and no request leaves the machine.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from safetrain_shared.i18n import translate as _
from safetrain_shared.i18n import using
from tests.browser import browser
from tests.dashboard.conftest import Served
from tests.harness import DaemonProcess
from tests.tiny import make_tiny_model

__all__ = ["browser"]
pytestmark = pytest.mark.slow  # a minute of training and measuring: make journeys

HOSTILE = "<img src=x onerror=alert(1)>"
GIVEN_MODEL = os.environ.get("SAFETRAIN_JOURNEY_MODEL", "")
PATIENCE = 600_000  # milliseconds that a training or measurement of a real model may take


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("journey")
    if GIVEN_MODEL:
        (folder / "model").symlink_to(Path(GIVEN_MODEL).resolve(strict=True))
    else:
        make_tiny_model(folder / "model", layers=2)
    rows = [f"Quem marcou o golo {n}?,O golo {n} foi de J. {n * n}." for n in range(40)]
    rows.append(f'"{HOSTILE}","{HOSTILE}"')
    rows.append("Sem resposta?,")
    (folder / "perguntas.csv").write_text("pergunta,resposta\n" + "\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    daemon = DaemonProcess(folder / "home")
    try:
        daemon.start()
        page = Served(home=daemon.home, user=folder / "user")
        yield page
        page.end()
    finally:
        daemon.end()


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened, wrong = context.new_page(), []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.accept()))
    opened.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    opened.on(
        "request", lambda r: wrong.append(r.url) if f"//{served.host}/" not in r.url else None
    )
    opened.goto(served.url)
    language = opened.get_by_role("button", name="PT", exact=True)
    expect(language).to_have_attribute("data-htmx-powered", "true")  # its scripts have run
    yield opened
    context.close()
    assert wrong == []


class Mouse:
    """Does what a person does with a mouse."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def press(self, what: Locator) -> None:
        what.click()

    def write(self, field: Locator, text: str) -> None:
        field.click()
        self.page.keyboard.insert_text(text)

    def give(self, file: Path, _field: Locator) -> None:
        """Drop a file on the page's field for files."""
        drop = self.page.locator("#file")
        drop.scroll_into_view_if_needed()
        box = drop.bounding_box()
        assert box is not None
        chrome = self.page.context.new_cdp_session(self.page)
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            chrome.send("Input.dispatchDragEvent", {"type": kind, **at, "data": data})


class Keyboard(Mouse):
    """Does the same with the keyboard alone."""

    def press(self, what: Locator) -> None:
        self.reach(what)
        self.page.keyboard.press("Enter")

    def write(self, field: Locator, text: str) -> None:
        self.reach(field)
        self.page.keyboard.insert_text(text)

    def give(self, file: Path, field: Locator) -> None:
        """Point at a file by its path."""
        self.write(field, str(file))
        self.page.keyboard.press("Enter")

    def reach(self, what: Locator) -> None:
        """Press Tab until it has the focus."""
        expect(what).to_be_visible()
        for _step in range(200):
            if what.evaluate("it => it === document.activeElement"):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach {what}")


def axe(page: Page) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def said(page: Page) -> list[str]:
    """The conversation that the page carries."""
    return list(json.loads(page.locator("#said input").input_value()))


@pytest.mark.parametrize(("kind", "lang"), [(Mouse, "en"), (Keyboard, "pt")])
def test_from_a_file_to_a_model_one_talks_to(
    page: Page, served: Served, folder: Path, kind: type[Mouse], lang: str
) -> None:
    hand = kind(page)
    expect(page).to_have_url(re.compile(f"//{served.host}/"))
    if lang != "en":
        hand.press(page.get_by_role("button", name=lang.upper(), exact=True))
        expect(page.locator("html")).to_have_attribute("lang", lang)
    with using(lang):
        begin(hand, folder)
        meanwhile(hand)
        verdict_and_promotion(hand)
        export(hand)
        conversation(hand)
        compare(hand)


def begin(hand: Mouse, folder: Path) -> None:
    page = hand.page
    hand.press(page.get_by_role("link", name=_("Begin"), exact=True))
    model = page.get_by_label(_("A folder, or a name on the Hugging Face hub"))
    hand.write(model, str(folder / "model"))
    hand.give(folder / "perguntas.csv", page.get_by_label(_("Or point at a file or a folder")))
    expect(page.locator("#read")).to_contain_text("pergunta")
    expect(page.locator("#made")).to_contain_text(_("samples to train on"))
    expect(page.locator("#problems li")).to_have_count(1)
    expect(page.locator("#samples mark").first).to_contain_text("O golo")
    hand.press(page.get_by_role("button", name=_("Check"), exact=True))
    outcome = page.locator("#outcome")
    expect(outcome).to_contain_text(_("It can be trained here."), timeout=PATIENCE)
    expect(page.locator("#found-hardware li").first).to_be_visible()
    axe(page)
    hand.write(page.get_by_label("num_epochs"), "1")
    hand.press(page.get_by_text(_("All other settings"), exact=True))
    hand.write(page.get_by_label("save_steps"), "4")
    hand.press(page.get_by_role("button", name=_("Start the training")))


def meanwhile(hand: Mouse) -> None:
    page = hand.page
    expect(page).to_have_url(re.compile(r"/jobs/\d+$"))
    expect(page.locator("#title")).to_have_text(re.compile(r"^perguntas(-2)?$"))
    axe(page)
    expect(page.locator("#state")).to_have_text(_("succeeded"), timeout=PATIENCE)
    expect(page.locator("#chart-loss canvas")).to_be_visible()


def verdict_and_promotion(hand: Mouse) -> None:
    page = hand.page
    expect(page.locator(".judgement")).to_be_visible()
    hand.press(page.get_by_text(_("Questions won and lost"), exact=True))
    expect(page.locator("#won-lost li").first).to_be_visible()
    hand.press(page.locator("button[name=checkpoint]").last)
    answers = _("{checkpoint} now answers, and is exported.")
    expect(page.locator("#promoted")).to_contain_text(answers.partition("}")[2])
    both = _("Write a question; both answer as you pause")
    hand.write(page.get_by_placeholder(both), HOSTILE)
    for side in ("base", "adapter"):
        expect(page.locator(f"#{side}-state")).to_contain_text("tokens/s")


def export(hand: Mouse) -> None:
    page = hand.page
    hand.press(page.get_by_role("button", name=_("Write it")))
    expect(page.locator("#exporting")).to_contain_text("mlx_lm.generate")
    with page.expect_download() as taken:
        hand.press(page.get_by_role("link", name=_("The report")))
    assert re.fullmatch(r"safetrain-\d-report.html", taken.value.suggested_filename)


def conversation(hand: Mouse) -> None:
    page = hand.page
    field = page.get_by_label(_("Your question")).last
    hand.write(field, HOSTILE)
    hand.press(page.get_by_role("button", name=_("Ask"), exact=True))
    expect(page.locator(".exchange .question")).to_have_text(HOSTILE)
    expect(page.locator(".exchange .hint")).to_contain_text("tokens/s")
    expect(page.locator("#said input")).to_have_count(1)
    hand.write(field, "E depois?")
    page.keyboard.press("Enter")
    expect(page.locator(".exchange .hint").last).to_contain_text("tokens/s")
    expect(page.locator("#said input")).to_have_value(re.compile("E depois"))
    assert said(page)[::2] == [HOSTILE, "E depois?"]
    axe(page)
    hand.press(page.get_by_role("button", name=_("Begin anew")))
    expect(page.locator(".exchange")).to_have_count(0)


def compare(hand: Mouse) -> None:
    page = hand.page
    hand.press(page.get_by_role("link", name=_("Compare runs")))
    expect(page.locator("#compared canvas").first).to_be_visible()
    axe(page)

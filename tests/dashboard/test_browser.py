"""The live page in a real browser: headless Chromium, where there is one."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from safetrain_proto.v1.answers_pb2 import AnswerDone, AnswerSource, AskEvent
from safetrain_shared import i18n
from safetrain_shared.jobs import JobState
from safetrain_shared.paths import Home
from tests.browser import browser
from tests.client.builders import complete_run, event, job, step
from tests.client.fake import FakeDaemon
from tests.dashboard.conftest import Served
from tests.harness import wait_for

__all__ = ["browser"]

WIDTHS = (360, 800, 1280)


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeDaemon]:
    """A scripted daemon with one job in training and one behind it."""
    fake = FakeDaemon(Home(tmp_path_factory.mktemp("home")))
    running = job(1, name="Farense", last_seq=11, step=30, total_steps=100, train_loss=1.25)
    fake.jobs = [running, job(2, JobState.QUEUED, queue_position=1)]
    fake.events = complete_run()[:-2]
    fake.start()
    yield fake
    fake.ended.set()
    fake.stop()


@pytest.fixture(scope="module")
def served(scripted: FakeDaemon) -> Iterator[Served]:
    page = Served(home=scripted.home)
    yield page
    page.end()


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    """The page, opened with its address. Fails on an error in its scripts or a foreign request."""
    context = browser.new_context(locale="en-GB", viewport={"width": 1280, "height": 900})
    opened, wrong = context.new_page(), []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    opened.on(
        "request", lambda r: wrong.append(r.url) if f"//{served.host}/" not in r.url else None
    )
    opened.goto(served.url)
    expect(opened.locator("#title")).to_have_text("Farense")
    expect(opened.locator("#chart-memory canvas")).to_be_visible()
    yield opened
    context.close()
    assert wrong == []


def test_one_look_tells_state_progress_loss_and_memory(page: Page) -> None:
    assert page.title() == "30% · Farense · safetrain"
    assert "token" not in page.url
    expect(page.locator("#state")).to_have_text("running")
    expect(page.locator("#progress")).to_have_text("step 30 of 100")
    expect(page.locator("#bar")).to_have_attribute("value", "30")
    expect(page.locator("#figures")).to_contain_text("1.250")
    expect(page.locator("#figures")).to_contain_text("3.0 GiB")
    expect(page.locator("#chart-loss .plot")).to_have_attribute(
        "aria-label", re.compile("^Loss: training 1, validation 2.25")
    )
    expect(page.locator("#log")).to_contain_text("checkpoint_epoch_0_step_20")
    expect(page.locator("#jobs a")).to_have_count(2)


def test_a_new_step_is_drawn_without_a_reload(page: Page, scripted: FakeDaemon) -> None:
    scripted.events.append(event(11, step(40, 0.5)))
    expect(page.locator("#chart-loss .plot")).to_have_attribute(
        "aria-label", re.compile("^Loss: training 0.5,")
    )
    scripted.jobs[0].step = 40
    expect(page.locator("#progress")).to_have_text("step 40 of 100")
    scripted.jobs[0].step = 30


def test_a_lost_daemon_and_its_return_are_shown(page: Page, scripted: FakeDaemon) -> None:
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    scripted.stop()
    expect(page.locator("#link")).to_have_attribute("data-state", "away")
    scripted.start()
    expect(page.locator("#link")).to_have_attribute("data-state", "live")


def test_the_language_changes_at_a_click_and_stays(page: Page) -> None:
    page.get_by_role("button", name="PT").click()
    expect(page.locator("html")).to_have_attribute("lang", "pt")
    expect(page.locator("#figures")).to_contain_text("1,250")
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "pt")


def test_the_button_of_the_language_that_is_spoken_loads_nothing(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_role("button", name="EN", exact=True).click()
    page.get_by_role("button", name="PT", exact=True).click()
    expect(page.locator("html")).to_have_attribute("lang", "pt")
    assert sum(url.endswith("/language") for url in asked) == 1


def test_the_keyboard_reads_a_curve_and_picks_a_job(page: Page) -> None:
    page.locator("#chart-loss .plot").focus()
    page.keyboard.press("Home")
    expect(page.locator("#chart-loss .readout")).to_have_text("step 10 · training 3")
    page.keyboard.press("ArrowRight")
    read = "step 20 · training 2 · validation 2.25 · best 2.25"
    expect(page.locator("#chart-loss .readout")).to_have_text(read)
    page.locator("#jobs a").nth(1).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#title")).to_have_text("Job 2")


def test_a_conversation_counts_until_one_begins_anew_and_what_is_said_stays_text(
    page: Page, scripted: FakeDaemon
) -> None:
    scripted.answer = [
        AskEvent(source=AnswerSource(model="demo")),
        AskEvent(text="<img src=x onerror=alert(1)>"),
        AskEvent(text=" Faro."),
        AskEvent(done=AnswerDone(tokens=3)),
    ]
    answer, before = "<img src=x onerror=alert(1)> Faro.", len(scripted.requests)
    for number, question in enumerate(("Em que cidade?", "E é\nbonita?", "Outra?"), 1):
        if number == 3:
            page.get_by_role("button", name="Begin anew").click()
            expect(page.locator("#forgotten")).to_have_text("What was said is forgotten.")
            expect(page.locator(".exchange")).to_have_count(0)
        page.get_by_label("Your question").fill(question)
        page.keyboard.press("Enter")
        expect(page.locator(".exchange .hint").last).to_contain_text("tokens/s")
        expect(page.locator("#said input")).to_have_count(1)
        expect(page.locator("#said input")).to_have_value(re.compile(question.split()[-1][:5]))
    expect(page.locator(".answer").last).to_have_text(answer)
    expect(page.locator(".answer img")).to_have_count(0)
    asked = [r for r in scripted.requests[before:] if type(r).__name__ == "AskRequest"]
    assert [[m.content for m in r.messages] for r in asked] == [
        ["Em que cidade?"],
        ["Em que cidade?", answer, "E é\nbonita?"],
        ["Outra?"],
    ]
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_enabled()


def test_a_question_that_is_stopped_is_forgotten_and_none_is_lost_meanwhile(
    page: Page, scripted: FakeDaemon
) -> None:
    field, held = page.get_by_label("Your question"), threading.Event()
    scripted.answer, before = [AskEvent(text="Em")], len(scripted.requests)
    scripted.hold_answer = held
    field.fill("Quem?")
    field.press("Enter")
    expect(page.locator(".answer")).to_have_text("Em")
    field.fill("Onde?")
    field.press("Enter")  # not while the other is answered
    expect(field).to_have_value("Onde?")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".exchange .hint")).to_have_text("Stopped; this question is forgotten.")
    held.set()
    scripted.hold_answer = None
    field.press("Enter")
    expect(page.locator(".exchange")).to_have_count(2)
    expect(page.locator(".exchange").last.locator(".answer")).to_have_text("Em")
    asked = [r for r in scripted.requests[before:] if type(r).__name__ == "AskRequest"]
    assert [[m.content for m in r.messages] for r in asked] == [["Quem?"], ["Onde?"]]


# Stands for the browser's own: what is told is kept, and the person agrees when asked.
NOTIFICATION = """
window.told = []; window.away = false;
window.Notification = class {
  static permission = "default";
  static async requestPermission() { return (this.permission = "granted"); }
  constructor(text) { window.told.push(text); }
};
Object.defineProperty(document, "hidden", { get: () => window.away });
"""


def test_the_browser_tells_whoever_asked_for_it_and_looks_elsewhere(
    page: Page, scripted: FakeDaemon
) -> None:
    page.context.add_init_script(NOTIFICATION)
    page.reload()
    running, told = scripted.jobs[0], page.locator("#told")

    def turn(state: JobState, word: str) -> None:
        running.state = job(1, state).state
        expect(told).to_have_text(f"Farense: {word}")

    def notified() -> list[str]:
        return list(page.evaluate("told"))

    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    page.evaluate("away = true")
    turn(JobState.PAUSED, "paused")  # nobody asked for it yet
    assert notified() == []
    page.get_by_role("button", name="Notify me").click()
    expect(page.locator("#notify")).to_be_hidden()
    turn(JobState.INTERRUPTED, "interrupted")
    page.wait_for_function("told.length === 1")
    page.evaluate("away = false")
    turn(JobState.FAILED, "failed")  # one looks at the page
    page.evaluate("away = true")
    turn(JobState.SUCCEEDED, "succeeded")
    page.wait_for_function("told.length === 2")
    assert notified() == ["Farense: interrupted", "Farense: succeeded"]
    running.state = job(1).state
    expect(page.locator("#state")).to_have_text("running")


def test_a_browser_that_allows_notifications_is_not_asked_again(
    browser: Browser, served: Served
) -> None:
    context = browser.new_context(permissions=["notifications"])
    page = context.new_page()
    page.goto(served.url)
    expect(page.locator("#title")).to_have_text("Farense")
    assert page.evaluate("Notification.permission") == "granted"
    expect(page.locator("#notify")).to_be_hidden()
    context.close()


def test_it_fits_a_phone_and_a_desktop(page: Page) -> None:
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        # The charts are drawn anew after the width has changed.
        page.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
        expect(page.locator("#chart-memory canvas")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("lang", i18n.LANGUAGES)
def test_axe_finds_nothing_that_shuts_anybody_out(
    page: Page, lang: str, scheme: Literal["light", "dark"]
) -> None:
    page.emulate_media(color_scheme=scheme)
    page.get_by_role("button", name=lang.upper(), exact=True).click()
    expect(page.locator("html")).to_have_attribute("lang", lang)
    expect(page.locator("#chart-memory canvas")).to_be_visible()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_a_job_that_failed_before_its_first_step_has_a_way_on_and_nothing_empty(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    fake = FakeDaemon(Home(tmp_path_factory.mktemp("home")))
    fake.jobs = [job(1, JobState.FAILED)]
    fake.start()
    served = Served(home=fake.home)
    page = browser.new_page()
    try:
        page.goto(served.url)
        expect(page.locator("#next")).to_contain_text("safetrain diagnose 1")
        for empty in ("#figures", "#curves", ".progress"):
            expect(page.locator(empty)).to_be_hidden()
        again = page.get_by_role("button", name="Try again")
        expect(again).to_have_attribute("data-htmx-powered", "true")  # its scripts have run
        again.click()
        wait_for(lambda: any(type(r).__name__ == "JobRequest" and r.id == 1 for r in fake.requests))
        fake.jobs = [job(1, JobState.QUEUED, queue_position=1)]
        expect(again).to_be_hidden()
    finally:
        page.close()
        served.end()
        fake.ended.set()
        fake.stop()

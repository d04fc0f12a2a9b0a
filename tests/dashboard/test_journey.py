"""From a CSV file dropped on the page to a model that is asked and exported, in real Chromium.

A real daemon trains a tiny model. Axe looks at each station, and no request leaves the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser import browser
from tests.dashboard.conftest import Served
from tests.harness import DaemonProcess
from tests.tiny import make_tiny_model

__all__ = ["browser"]
pytestmark = pytest.mark.slow  # a minute of training and measuring: make journeys

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("journey")
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


def drop(page: Page, file: Path) -> None:
    """Drop a file on the page's field for files, as a mouse does."""
    field = page.locator("#file")
    field.scroll_into_view_if_needed()
    box = field.bounding_box()
    assert box is not None
    chrome = page.context.new_cdp_session(page)
    at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        chrome.send("Input.dispatchDragEvent", {"type": kind, **at, "data": data})


def axe(page: Page) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_from_a_file_to_a_model_that_answers(page: Page, served: Served, folder: Path) -> None:
    expect(page).to_have_url(f"http://{served.host}/begin")
    page.get_by_label("A folder, or a name on the Hugging Face hub").fill(str(folder / "model"))
    drop(page, folder / "perguntas.csv")
    expect(page.locator("#read")).to_contain_text("pergunta")
    expect(page.locator("#made")).to_contain_text("samples to train on")
    expect(page.locator("#problems li")).to_have_count(1)
    expect(page.locator("#samples mark").first).to_contain_text("O golo")
    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.locator("#outcome")).to_contain_text("It can be trained here.")
    expect(page.locator("#found-hardware li").first).to_be_visible()
    axe(page)
    page.get_by_label("num_epochs").fill("1")
    page.get_by_label("save_steps").evaluate("field => { field.value = '4' }")
    page.get_by_role("button", name="Start the training").click()

    expect(page).to_have_url(f"http://{served.host}/jobs/1")
    expect(page.locator("#title")).to_have_text("perguntas")
    expect(page.locator("#state")).to_have_text("succeeded", timeout=120_000)
    expect(page.locator("#chart-loss canvas")).to_be_visible()
    expect(page.locator(".judgement")).to_be_visible()
    page.get_by_text("Questions won and lost").click()
    expect(page.locator("#won-lost li").first).to_be_visible()
    page.get_by_role("button", name="Use checkpoint_").last.click()
    expect(page.locator("#promoted")).to_contain_text("now answers")
    page.get_by_placeholder("both answer as you pause").fill(HOSTILE)
    for side in ("base", "adapter"):
        expect(page.locator(f"#{side}-state")).to_contain_text("tokens/s")
    page.get_by_label("Your question").last.fill(HOSTILE)
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".exchange .question")).to_have_text(HOSTILE)
    expect(page.locator(".exchange .hint")).to_contain_text("tokens/s")
    page.get_by_role("button", name="Write it").click()
    expect(page.locator("#exporting")).to_contain_text("mlx_lm.generate")
    with page.expect_download() as taken:
        page.get_by_role("link", name="The report").click()
    assert taken.value.suggested_filename == "safetrain-1-report.html"
    axe(page)
    page.get_by_role("link", name="Compare runs").click()
    expect(page.locator("#compared canvas").first).to_be_visible()
    axe(page)


def test_the_same_by_keyboard_alone_in_portuguese(page: Page, served: Served, folder: Path) -> None:
    page.get_by_role("button", name="PT", exact=True).press("Enter")
    expect(page.locator("html")).to_have_attribute("lang", "pt")
    page.get_by_role("link", name="Começar", exact=True).press("Enter")
    page.get_by_label("Uma pasta, ou um nome").press_sequentially(str(folder / "model"))
    page.get_by_label("Ou indique um ficheiro").press_sequentially(str(folder / "perguntas.csv"))
    page.keyboard.press("Enter")
    expect(page.locator("#samples mark").first).to_be_visible()
    page.get_by_role("button", name="Verificar", exact=True).press("Enter")
    expect(page.locator("#outcome")).to_contain_text("Pode ser treinado aqui.")
    reach(page, "Iniciar o treino")
    page.keyboard.press("Enter")
    expect(page.locator("#title")).to_have_text("perguntas-2")
    cancel = page.get_by_role("button", name="Cancelar", exact=True)
    expect(cancel.or_(page.locator(".judgement"))).to_be_visible()
    axe(page)


def reach(page: Page, name: str) -> None:
    """Press Tab until the button of that name has the focus."""
    for _step in range(150):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == name:
            return
    raise AssertionError(f"Tab does not reach {name}")

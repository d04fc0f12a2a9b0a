"""The report in a real browser: nothing is fetched, nothing overflows, everything can be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from safetrain.report.report_page import page
from safetrain_shared import i18n
from tests.browser import browser
from tests.report import runs
from tests.report.test_report import contents

__all__ = ["browser"]


# WCAG 2.2, 1.4.3: the contrast of each text against the first opaque ground behind it.
CONTRAST = """() => {
  const parts = c => c.match(/[\\d.]+/g).map(Number);
  const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = parts(c).map(linear);
                       return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor, p = parts(c);
      if (p.length < 4 || p[3] === 1) return c; } return 'rgb(255, 255, 255)'; };
  const poor = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || ['TITLE', 'title', 'desc'].includes(e.tagName)) continue;
    const style = getComputedStyle(e);
    const ink = e.namespaceURI.endsWith('svg') ? style.fill : style.color;
    const [a, b] = [light(ink), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    seen += 1;
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${e.tagName} ${walk.currentNode.data.trim()}`);
  }
  return [seen, poor];
}"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(contents()), "utf-8")
    return path.as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(browser: Browser, file: str, scheme: str) -> None:
    with browser.new_page(color_scheme=scheme) as tab:
        tab.goto(file)
        seen, poor = tab.evaluate(CONTRAST)
        assert seen > 200
        assert not poor


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("lang", i18n.LANGUAGES)
def test_axe_finds_nothing_that_shuts_anybody_out(
    browser: Browser, tmp_path: Path, lang: str, scheme: str
) -> None:
    path = tmp_path / "report.html"
    with i18n.using(lang):
        path.write_text(page(contents()), "utf-8")
    with browser.new_page(color_scheme=scheme) as tab:
        tab.goto(path.as_uri())
        found = Axe().run(tab)
        assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("width", [390, 1100])
def test_nothing_is_fetched_or_wider_than_the_screen(
    browser: Browser, file: str, width: int
) -> None:
    asked: list[str] = []
    said: list[str] = []
    with browser.new_page(viewport={"width": width, "height": 800}) as tab:
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: said.append(message.text))
        tab.goto(file)
        assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        names = tab.evaluate("[...document.querySelectorAll('h2')].map(h => h.textContent)")
    assert asked == [file]
    assert said == []
    assert len(names) == 9


OVERLAPPING = """() => [...document.querySelectorAll('svg.chart')].flatMap(chart => {
  const boxes = [...chart.querySelectorAll('.epoch')].map(e => e.getBoundingClientRect());
  const right = chart.getBoundingClientRect().right;
  return boxes.filter((box, i) => box.right > (boxes[i + 1]?.left ?? right)).map(box => box.left);
})"""


@pytest.mark.parametrize("width", [360, 760, 1100])
def test_no_label_of_an_epoch_runs_into_the_next(
    browser: Browser, tmp_path: Path, width: int
) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(contents(events=runs.eventful(600, 30))), "utf-8")
    with browser.new_page(viewport={"width": width, "height": 800}) as tab:
        tab.goto(path.as_uri())
        assert tab.locator("svg.chart .epoch").count() > 4
        assert tab.evaluate(OVERLAPPING) == []


def test_on_paper_it_is_light_and_whole(browser: Browser, file: str) -> None:
    with browser.new_page(color_scheme="dark") as tab:
        tab.goto(file)
        tab.emulate_media(media="print")
        colour = "getComputedStyle(document.body).backgroundColor"
        assert tab.evaluate(colour) == "rgb(255, 255, 255)"
        cut = "e => e.scrollHeight > e.clientHeight + 1"
        assert tab.evaluate(f"[...document.querySelectorAll('.scroll')].filter({cut}).length") == 0
        assert tab.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
        assert tab.pdf(prefer_css_page_size=True).startswith(b"%PDF")

"""The PNG pictures: named as in the user's document, whole, in both languages."""

from __future__ import annotations

import dataclasses
import io

import pytest

from safetrain.page import job_texts
from safetrain.views import charts
from safetrain.views.curves import Curves, curves_of
from safetrain_shared import events, i18n
from safetrain_shared.history import history
from tests.report import runs

plots = pytest.importorskip("safetrain.report.png_plots")
Image = pytest.importorskip("PIL.Image")


def opened(png: bytes):  # type: ignore[no-untyped-def]
    return Image.open(io.BytesIO(png))


def colours(png: bytes) -> set[tuple[int, int, int]]:
    return {colour for _count, colour in opened(png).convert("RGB").getcolors(1 << 20)}


def rgb(text: str) -> tuple[int, int, int]:
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


@pytest.fixture(scope="module")
def drawn() -> dict[str, bytes]:
    return plots.draw(curves_of(runs.eventful()), "Job 3")


def test_the_three_pictures_of_the_document(drawn: dict[str, bytes]) -> None:
    assert list(drawn) == ["loss.png", "learning_rate.png", "memory_usage.png"]
    for png in drawn.values():
        assert opened(png).size == (1600, 896)


def test_curves_best_and_limit_are_there_in_their_colours(drawn: dict[str, bytes]) -> None:
    assert {rgb("#0072b2"), rgb("#d55e00"), rgb("#00795a")} <= colours(drawn["loss.png"])
    assert rgb("#b3123c") in colours(drawn["memory_usage.png"])


def test_a_picture_says_in_words_what_it_shows(drawn: dict[str, bytes]) -> None:
    text = opened(drawn["loss.png"]).text
    assert text["Title"] == "Loss · Job 3"
    assert "1.135" in text["Description"]


def test_numbers_are_written_as_the_language_writes_them() -> None:
    curves = curves_of(runs.eventful())
    with i18n.using("pt"):
        assert "1,135" in charts.loss(curves).caption
        portuguese = plots.render(charts.loss(curves), "3")
    assert portuguese != plots.render(charts.loss(curves), "3")


@pytest.mark.parametrize(
    "bodies",
    [
        [runs.step(1, 10, 5)],
        [runs.evaluated(1, 10, 5)],
        [runs.step(1, 10, 5, loss=float("nan"))],
        [runs.step(1, 10, 5), runs.step(2, 10, 5)],
    ],
)
def test_a_run_that_only_began_can_be_drawn(bodies: list[events.Body]) -> None:
    curves = curves_of(runs.numbered((1, body) for body in bodies))
    assert len(plots.draw(curves, "x")) == 3


def test_hardly_more_points_are_drawn_than_the_picture_has_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    thinned = plots.thinned

    def counting(points: object, columns: int) -> object:
        few = thinned(points, columns)
        seen.append(len(few))
        return few

    monkeypatch.setattr(plots, "thinned", counting)
    plots.draw(curves_of(runs.long(20_000)), "x")
    assert seen
    assert max(seen) <= 4 * plots.COLUMNS


def test_nothing_is_shown_of_a_limit_that_is_not_there() -> None:
    curves = Curves(steps=[runs.step(1, 10, 5)])
    assert charts.memory(curves).limit is None


def test_a_budget_far_above_the_memory_in_use_does_not_flatten_its_curve() -> None:
    curves = curves_of(runs.eventful())
    assert charts.memory(curves).limit is not None and curves.plan is not None
    far = dataclasses.replace(curves.plan, memory_budget=64 * runs.GB)
    chart = charts.memory(dataclasses.replace(curves, plan=far))
    assert chart.limit is None
    assert "64.0 GiB" in chart.title and "64.0 GiB" in chart.caption
    assert job_texts.curves(dataclasses.replace(history(runs.eventful()), plan=far))["budget"] == 0

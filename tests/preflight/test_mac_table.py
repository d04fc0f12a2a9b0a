"""What the documents recommend for recorded Macs is what the planner says today."""

from __future__ import annotations

from pathlib import Path

import pytest

from safetrain_shared import i18n
from scripts import mac_table


@pytest.mark.parametrize("lang", mac_table.LANGUAGES)
def test_the_table_is_that_of_todays_planner(lang: str, tmp_path: Path) -> None:
    """`make mac-table` writes it anew."""
    models = {model: mac_table.written(model, tmp_path) for model in mac_table.MODELS}
    with i18n.using(lang):
        page = mac_table.page(models, lang)
    assert page == mac_table.PAGES[lang].read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("gigabytes", "said"),
    [
        (8, "Even with these closed there would be about"),
        (16, "With these closed there would be about"),
        (32, None),
    ],
)
def test_a_busy_mac_that_is_too_small_for_a_7b_is_told_what_to_quit_and_what_that_gives(
    gigabytes: int, said: str | None, tmp_path: Path
) -> None:
    mac = next(mac for mac in mac_table.MACS if mac.memory_gb == gigabytes)
    model = next(m for m in mac_table.MODELS if m.name == "Mistral-7B-4bit")
    known = mac_table.written(model, tmp_path)
    _, plan, reasons, _ = mac_table._row(mac, model, known, "en")
    assert (plan == "–") == (said is not None)
    if said:
        assert "Quit Google Chrome: that gives about 2.3 GiB" in reasons
        assert said in reasons and "--memory-budget 5.5GiB" in reasons

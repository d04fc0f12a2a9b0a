"""Numbers and sentences as each language writes them."""

import pytest

from safetrain_shared import i18n

GB = 1 << 30


@pytest.mark.parametrize(
    ("text", "value", "english", "portuguese"),
    [
        ("{x:bytes}", 7.3 * GB, "7.3 GB", "7,3 GB"),
        ("{x:bytes}", 900, "900 B", "900 B"),
        ("{x:num}", 0.0002, "0.0002", "0,0002"),
        ("{x:num}", 0.00002, "0.00002", "0,00002"),
        ("{x:num}", 512, "512", "512"),
        ("{x:int}", 12345, "12,345", "12\N{NO-BREAK SPACE}345"),
        ("{x:pct}", 0.125, "12.5\N{NO-BREAK SPACE}%", "12,5\N{NO-BREAK SPACE}%"),
        ("{x:time}", 7500, "2 h 05 min", "2 h 05 min"),
        ("{x:time}", 7195, "2 h 00 min", "2 h 00 min"),
        ("{x}", 1.5, "1.5", "1,5"),
        ("{x}", "Faro", "Faro", "Faro"),
    ],
)
def test_a_value_reads_as_its_language_writes_it(
    text: str, value: object, english: str, portuguese: str
) -> None:
    assert i18n.format_text(text, {"x": value}, "en") == english
    assert i18n.format_text(text, {"x": value}, "pt") == portuguese


def test_a_missing_argument_does_not_raise() -> None:
    assert i18n.format_text("{absent:bytes} of {absent}", {}, "en") == "? of ?"


@pytest.mark.parametrize(
    ("environ", "lang"),
    [
        ({"LANG": "pt_PT.UTF-8"}, "pt"),
        ({"LANG": "pt_BR.UTF-8"}, "pt"),
        ({"LANG": "en_GB.UTF-8"}, "en"),
        ({"LANG": "pt_PT.UTF-8", "LC_ALL": "en_US.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "SAFETRAIN_LANG": "pt"}, "pt"),
    ],
)
def test_the_locale_chooses_the_language(environ: dict[str, str], lang: str) -> None:
    assert i18n.detected(environ) == lang


def test_a_sentence_is_translated() -> None:
    assert i18n.translate("Paused as asked.", "pt") == "Em pausa, como pedido."
    assert i18n.translate("Paused as asked.", "en") == "Paused as asked."

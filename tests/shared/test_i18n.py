"""Numbers and sentences as each language writes them."""

import os
import plistlib
import subprocess
import sys
from pathlib import Path

import pytest

from safetrain_shared import i18n
from safetrain_shared.messages import sentence
from scripts import catalogues

GB = 1 << 30


@pytest.mark.parametrize(
    ("text", "value", "english", "portuguese"),
    [
        ("{x:bytes}", 7.3 * GB, "7.3 GiB", "7,3 GiB"),
        ("{x:bytes}", 900, "900 B", "900 B"),
        ("{x:num}", 0.0002, "0.0002", "0,0002"),
        ("{x:num}", 0.00002, "0.00002", "0,00002"),
        ("{x:num}", 512, "512", "512"),
        ("{x:int}", 12345, "12,345", "12\N{NO-BREAK SPACE}345"),
        ("{x:int}", 1234, "1,234", "1234"),
        ("{x:num}", 2**63 - 1, "9223372036854775807", "9223372036854775807"),
        ("{x:pct}", 0.125, "12.5%", "12,5\N{NO-BREAK SPACE}%"),
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


def test_the_language_is_the_locales_until_one_is_chosen() -> None:
    """For a program or notebook that imports safetrain and chooses none."""
    code = "from safetrain_shared import i18n; print(i18n.language(), i18n.decimal(1.5, 1))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SAFETRAIN_LANG": "pt"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "pt 1,5\n"


@pytest.mark.parametrize(
    ("rate", "english", "portuguese"),
    [(2e-4, "0.0002", "0,0002"), (1.8181818e-5, "1.82e-5", "1,82e-5"), (0.0, "0", "0")],
)
def test_a_learning_rate_has_three_digits_that_count(
    rate: float, english: str, portuguese: str
) -> None:
    assert (i18n.rate(rate, "en"), i18n.rate(rate, "pt")) == (english, portuguese)


def test_a_sentence_marked_inside_an_f_string_is_noticed() -> None:
    source = "a = f'{_(\"values\")}: {x}'\nb = f'{translate(name)}: {_hidden(1)}'\n"
    assert list(catalogues.hidden(source)) == [1]
    assert catalogues.overlooked() == []


def test_a_sentence_is_translated() -> None:
    assert i18n.translate("Paused as asked.", "pt") == "Em pausa, como pedido."
    assert i18n.translate("Paused as asked.", "en") == "Paused as asked."


def test_without_a_locale_the_language_is_that_of_the_mac(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / ".GlobalPreferences.plist"
    settings.write_bytes(plistlib.dumps({"AppleLanguages": ["pt-PT", "en-PT"]}))
    assert i18n._preferred(settings) == "", "of no other system"
    monkeypatch.setattr(i18n.sys, "platform", "darwin")
    assert i18n._preferred(settings) == "pt-PT"
    for other in (b"", b"not a plist", plistlib.dumps({}), plistlib.dumps({"AppleLanguages": []})):
        settings.write_bytes(other)
        assert i18n._preferred(settings) == ""
    assert i18n._preferred(tmp_path / "none") == ""
    monkeypatch.setattr(i18n._locale, "getlocale", lambda: (None, None))
    monkeypatch.setattr(i18n, "_preferred", lambda: "pt-BR")
    assert i18n.detected({}) == "pt"
    assert i18n.detected({"LANG": "en_GB.UTF-8"}) == "en"


def test_one_of_something_is_singular_in_both_languages() -> None:
    for lang, one, more in (
        ("en", "1 sample was", "2 samples were"),
        ("pt", "1 amostra", "2 amos"),
    ):
        for count, text in ((1, one), (2, more)):
            args = {"count": count, "length": 64}
            assert sentence("train.left_out", args, lang=lang).startswith(text)

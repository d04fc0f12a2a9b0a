"""Every sentence agrees with its counts: 1 sample was, 2 samples were; 1 amostra foi, 2 foram."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator

import pytest

from safetrain_shared.i18n import format_text
from scripts import catalogues

# Numbers that a sentence cannot be given as 1: limits of the settings, of models, of devices.
NEVER_ONE = {
    *("length", "positions", "size", "limit", "least", "most", "resources", "rank", "hours"),
    "ranks",  # one rank is an ordinary training, of which nothing of the kind is said
}
# Behind these a noun belongs to something else: line 1 of two samples, 1 de 2 respostas.
ENDS = {
    "en": re.compile("of|in|on|at|is|was|has|does|its|this|holds|because|as|than|would|to|s"),
    "pt": re.compile("d[eoa]s?|d?el[ae]s|em|n[oa]|é|foi|está|tem|por|porque|com|mais|a|e|s"),
}
SINGULAR_IN_S = {"less", "depois"}
PLURAL_VERBS = {
    "en": re.compile("are|were|have|differ|give|run|stand|appear"),
    "pt": re.compile(
        "são|foram|estão|ficam|ficaram|seriam|perde(ria)?m|dão|dizem|diferem|aparecem"
    ),
}
# Rates and units, which are plural whatever the number: 1 tokens per second, 1.0 nats.
UNITS = ("tokens per second", "tokens por segundo", "nats", "tokens/s")
_NO_COUNT = ("bytes", "time", "pct", "speed")


def translations() -> Iterator[tuple[str, str]]:
    """Yield each sentence with its language; plural entries are looked up by gettext itself."""
    portuguese = catalogues.read("pt")
    for message in catalogues.collected():
        if message.id and isinstance(message.id, str):
            yield "en", message.id
            yield "pt", str(portuguese[message.id].string)


def fields(text: str) -> list[tuple[str, str]]:
    return [(name, unit or "") for _, name, unit, _ in string.Formatter().parse(text) if name]


def counts() -> set[str]:
    """The names that are a count in any sentence are one wherever they stand."""
    named = {
        name
        for _, text in translations()
        if "%(" not in text
        for name, unit in fields(text)
        if unit == "int" or unit.startswith("|")
    }
    return named - NEVER_ONE


def filled(text: str, lang: str, number: int, of: set[str]) -> str:
    """The sentence with every count at `number`; what is no count is a word."""
    quantities = {name for name, unit in fields(text) if unit in _NO_COUNT}
    args = {name: number if name in of - quantities else "x" for name, _ in fields(text)}
    return format_text(text, args, lang)


def agrees(number: int, words: list[str], lang: str, singular: set[str]) -> bool:
    """Whether the first noun behind `number` is in its form; true where there is none."""
    for word in words:
        if ENDS[lang].fullmatch(word):
            return True
        if word in singular:
            return number == 1
        if word.endswith("s") and word not in SINGULAR_IN_S:
            return number == 2
    return True


def wrong_after(number: int, said: str, lang: str, singular: set[str]) -> Iterator[str]:
    """Yield what follows `number`, up to the next stop, where it does not agree with it."""
    for tail in re.findall(rf"(?<![\d.,-]){number}(?=((?:\s[^\s.;:,()·]+)+))", said):
        words = tail.split()
        many = number == 1 and any(map(PLURAL_VERBS[lang].fullmatch, words))
        if not tail.lstrip().startswith(UNITS) and (
            many or not agrees(number, words, lang, singular)
        ):
            yield f"{number}{tail}"


def complaints(sentences: list[tuple[str, str]], of: set[str]) -> list[str]:
    singular = {lang: singular_nouns(sentences, lang) for lang in ("en", "pt")}
    return [
        f"{lang}: {wrong} in: {text}"
        for lang, text in sentences
        if any(name in of for name, _ in fields(text))
        for number in (1, 2)
        for wrong in wrong_after(number, filled(text, lang, number, of), lang, singular[lang])
    ]


def singular_nouns(sentences: list[tuple[str, str]], lang: str) -> set[str]:
    """The nouns with a plural in some sentence: sample, of {count:|sample was|samples were}."""
    pairs = (
        (one.split()[0], more.split()[0])
        for of, text in sentences
        if of == lang
        for one, more in re.findall(r"\{\w+:\|([^|{}]+)\|([^|{}]+)\}", text)
    )
    return {one for one, more in pairs if one != more and more.endswith("s")}


def plain() -> list[tuple[str, str]]:
    return [(lang, text) for lang, text in translations() if "%(" not in text]


def test_every_sentence_agrees_with_one_and_with_two() -> None:
    sentences = plain()
    assert len(singular_nouns(sentences, "en")) > 15
    assert complaints(sentences, counts()) == []


@pytest.mark.parametrize(
    ("lang", "text"),
    [
        ("en", "{count:int} samples"),
        ("en", "{count} samples"),
        ("en", "{count:int} older jobs that have ended"),
        ("en", "{count:int} {count:|sample|samples} were left out"),
        ("en", "{count:int} sample was left out"),
        ("en", "{steps:int} of {count:int} answers"),
        ("pt", "{count:int} amostras"),
        ("pt", "{count:int} {count:|amostra|amostras} ficaram de fora"),
        ("pt", "{count:int} amostra ficou de fora"),
    ],
)
def test_a_sentence_that_does_not_agree_is_noticed(lang: str, text: str) -> None:
    known = [(lang, "{count:|sample was|samples were} {count:|amostra|amostras}")]
    assert complaints([*known, (lang, text)], {"count", "steps"})


def test_an_unformatted_count_of_one_is_singular_whatever_its_type() -> None:
    text = "{x:int} {x:|step|steps}"
    assert [format_text(text, {"x": x}, "en") for x in (0, 1, 1.0, 2)] == [
        "0 steps",
        "1 step",
        "1 step",
        "2 steps",
    ]

"""Collects the user-facing sentences from code and templates and compiles the catalogues.

`--check` changes nothing and exits 1 naming each sentence without a translation, each translation
that names other arguments than its original, a compiled file that is out of date, and each
sentence that is marked inside an f-string, where Babel does not find it.
"""

from __future__ import annotations

import ast
import string
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parent.parent
LOCALE = ROOT / "shared" / "safetrain_shared" / "locale"
SOURCES = ("shared/safetrain_shared", "client/safetrain", "daemon/safetraind")
METHODS = [("**.py", "python"), ("**/templates/**.html", "jinja2")]
KEYWORDS = {"_": None, "marked": None, "translate": None, "plural": (1, 2)}
LANGUAGES = ("pt",)


def collected() -> Catalog:
    """Return a catalogue of every sentence that is marked in the code."""
    catalogue = Catalog(domain="safetrain")
    for source in SOURCES:
        found = extract_from_dir(ROOT / source, METHODS, keywords=KEYWORDS)
        for _file, _line, message, _comments, _context in found:
            if message:
                catalogue.add(message)
    return catalogue


def hidden(source: str) -> Iterator[int]:
    """The lines of Python source where a sentence is marked inside an f-string."""
    for text in ast.walk(ast.parse(source)):
        if isinstance(text, ast.JoinedStr):
            calls = (node for node in ast.walk(text) if isinstance(node, ast.Call))
            yield from (call.lineno for call in calls if _marks(call))


def _marks(node: ast.Call) -> bool:
    """Whether the call marks a literal sentence, rather than translating a variable."""
    called = getattr(node.func, "id", "") in KEYWORDS
    return called and any(isinstance(argument, ast.Constant) for argument in node.args[:1])


def overlooked() -> list[str]:
    """Return a message for each marked sentence that Babel does not find."""
    return [
        f"{path.relative_to(ROOT)}:{line}: a sentence inside an f-string is not collected"
        for source in SOURCES
        for path in sorted((ROOT / source).rglob("*.py"))
        for line in hidden(path.read_text("utf-8"))
    ]


def po_path(lang: str) -> Path:
    """Return the path of a language's `.po` file."""
    return LOCALE / lang / "LC_MESSAGES" / "safetrain.po"


def read(lang: str) -> Catalog:
    """Return the catalogue of a language; empty where there is none yet."""
    if not po_path(lang).exists():
        return Catalog(locale=lang, domain="safetrain")
    with po_path(lang).open("rb") as file:
        return read_po(file, locale=lang, domain="safetrain")


def sentences(catalogue: Catalog) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return the translated sentences, without the header, which contains dates."""
    return {tuple(forms(m.id)): tuple(forms(m.string)) for m in catalogue if m.id and m.string}


def compiled(path: Path) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return the sentences in a `.mo` file; none where it is missing."""
    if not path.exists():
        return {}
    with path.open("rb") as file:
        return sentences(read_mo(file))


def forms(text: str | Sequence[str]) -> Sequence[str]:
    """Return the forms of a sentence: one, or one for each plural of the language."""
    return [text] if isinstance(text, str) else text


def names(text: str | Sequence[str]) -> set[str]:
    """Return the names of the arguments in a sentence, in any of its forms."""
    parsed = (part for form in forms(text) for part in string.Formatter().parse(form))
    return {field for _, field, _, _ in parsed if field}


def complaints(lang: str, wanted: Catalog) -> list[str]:
    """Return a message for each fault in the catalogue of a language."""
    catalogue, found = read(lang), []
    for message in wanted:
        if not message.id:
            continue
        entry = catalogue.get(message.id)
        if entry is None or not entry.string or not all(forms(entry.string)):
            found.append(f"{lang}: no translation of {message.id!r}")
        elif names(message.id) != names(entry.string):
            found.append(f"{lang}: other arguments in the translation of {message.id!r}")
    mo = po_path(lang).with_suffix(".mo")
    if compiled(mo) != sentences(catalogue):
        found.append(f"{lang}: {mo.relative_to(ROOT)} is out of date (run `make i18n`)")
    return found


def renew(lang: str, wanted: Catalog) -> None:
    """Update the `.po` file of a language from the code and compile it."""
    catalogue = read(lang)
    catalogue.update(wanted, no_fuzzy_matching=True)
    catalogue.obsolete.clear()
    po_path(lang).parent.mkdir(parents=True, exist_ok=True)
    with po_path(lang).open("wb") as file:
        write_po(file, catalogue, sort_output=True, no_location=True, omit_header=True, width=100)
    mo = po_path(lang).with_suffix(".mo")
    if compiled(mo) != sentences(catalogue):
        with mo.open("wb") as file:
            write_mo(file, catalogue)


def main() -> int:
    """Update the catalogues, or with `--check` exit 1 naming their faults."""
    wanted = collected()
    if "--check" not in sys.argv:
        for lang in LANGUAGES:
            renew(lang, wanted)
        return 0
    found = overlooked() + [line for lang in LANGUAGES for line in complaints(lang, wanted)]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

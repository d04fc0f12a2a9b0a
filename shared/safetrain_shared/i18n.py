"""Languages: the user's choice, gettext catalogues, and number formats."""

from __future__ import annotations

import gettext as _gettext
import locale as _locale
import os
import string
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from safetrain_shared.printable import one_line

LANGUAGES = ("en", "pt")
CATALOGUES = Path(__file__).parent / "locale"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_current: str | None = None  # None until the first call of `language` or `use`
_override: ContextVar[str | None] = ContextVar("override", default=None)


def language() -> str:
    """Return the language in use, `en` or `pt`."""
    return _override.get() or _current or use()


@contextmanager
def using(lang: str) -> Iterator[None]:
    """Use `lang` inside the block, in the current thread or task alone."""
    token = _override.set(lang)
    try:
        yield
    finally:
        _override.reset(token)


def use(lang: str | None = None) -> str:
    """Set the language of the process to `lang`, else to the environment's, and return it."""
    global _current
    _current = lang if lang is not None and lang in LANGUAGES else detected()
    return _current


def use_with_gettext(lang: str | None = None) -> str:
    """Set the language as `use` does, also for libraries that call gettext, such as click.

    gettext then looks texts up in safetrain's catalogue.
    """
    os.environ["LANGUAGE"] = chosen = use(lang)
    _gettext.bindtextdomain("safetrain", str(CATALOGUES))
    _gettext.textdomain("safetrain")
    return chosen


def lang_option(arguments: Sequence[str]) -> str | None:
    """Return the value of `--lang`, before click parses it: help texts already need it."""
    for here, after in pairwise([*arguments, ""]):
        if here == "--":
            break
        if here == "--lang":
            return after
        if here.startswith("--lang="):
            return here.removeprefix("--lang=")
    return None


def detected(environ: Mapping[str, str] = os.environ) -> str:
    """Return the language of the locale variables, else the system's; English by default."""
    for name in ("SAFETRAIN_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = environ.get(name, "")
        if value:
            return "pt" if value.lower().startswith("pt") else "en"
    system = _locale.getlocale()[0] or _preferred()
    return "pt" if system.lower().startswith("pt") else "en"


def _preferred(settings: Path | None = None) -> str:
    """Return the first language in the settings of macOS, such as `pt-PT`; empty elsewhere.

    Terminals set LANG; launchd, ssh and many editors do not.
    """
    if sys.platform != "darwin":
        return ""
    import plistlib  # rarely needed

    file = settings or Path.home() / "Library/Preferences/.GlobalPreferences.plist"
    try:
        return str(plistlib.loads(file.read_bytes())["AppleLanguages"][0])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return ""


@cache
def _catalogue(lang: str) -> _gettext.NullTranslations:
    return _gettext.translation("safetrain", CATALOGUES, [lang], fallback=True)


def translate(text: str, lang: str | None = None) -> str:
    """Return the translation of `text` into `lang`, else `text` where the catalogue has none."""
    return _catalogue(lang or language()).gettext(text) if text else text


_ = translate


def marked(text: str) -> str:
    """Return `text`: marks a sentence for the catalogue that is translated later."""
    return text


def marked_plural(singular: str, plural: str) -> tuple[str, str]:
    """Return the texts: marks both for the catalogue, as one entry with a plural."""
    return singular, plural


class _Formatter(string.Formatter):
    """`str.format` with the formats bytes, num, int, speed, pct and time, written for `lang`.

    `{count:|sample|samples}` is the first text for 1, the second for any other number.
    """

    def __init__(self, lang: str) -> None:
        self._lang = lang

    def get_value(self, key: int | str, args: Any, kwargs: Mapping[str, Any]) -> Any:
        return kwargs.get(str(key), "?")

    def format_field(self, value: Any, spec: str) -> str:
        if spec.startswith("|"):
            _, singular, plural = spec.split("|")
            return singular if value == 1 else plural
        if spec in _WRITERS:
            try:
                exact = value if isinstance(value, int) else float(value)
                return _WRITERS[spec](exact, self._lang)
            except (TypeError, ValueError):
                return one_line(str(value))
        if not spec and isinstance(value, float):
            return number(value, self._lang)
        return one_line(str(value)) if not spec else super().format_field(value, spec)


def format_text(text: str, args: Mapping[str, Any], lang: str | None = None) -> str:
    """Fill in the `{name}` and `{name:unit}` of `text`. A missing argument becomes `?`."""
    return _Formatter(lang or language()).vformat(text, (), args)


def decimal(value: float, digits: int, lang: str | None = None) -> str:
    """Format `value` with a fixed number of decimals: 7.3, in Portuguese 7,3."""
    text = f"{value:.{digits}f}"
    return text.replace(".", ",") if (lang or language()) == "pt" else text


def number(value: float, lang: str | None = None) -> str:
    """Format any number: 0.0002, 3, 7.25. Six significant digits; integers keep all of theirs."""
    whole = isinstance(value, int) or (value == int(value) and abs(value) < 1e15)
    text = f"{int(value)}" if whole else f"{value:.6g}"
    if "e" in text and 1e-9 < abs(value) < 1:
        text = f"{value:.10f}".rstrip("0")
    return text.replace(".", ",") if (lang or language()) == "pt" else text


def rate(value: float, lang: str | None = None) -> str:
    """Format a learning rate, three significant digits: 0.0002, 1.82e-5, Portuguese 1,82e-5."""
    if 0 < abs(value) < 1e-4:
        digits, _e, power = f"{value:.2e}".partition("e")
        return f"{number(float(digits), lang)}e{int(power)}"
    return number(float(f"{value:.3g}"), lang)


def throughput(value: float, lang: str | None = None) -> str:
    """Format tokens or steps per second: 1,234, below ten with decimals, 7.3 and 0.045."""
    if abs(value) >= 10 or not value:
        return integer(value, lang)
    return number(float(f"{value:.2g}"), lang)


def integer(value: float, lang: str | None = None) -> str:
    """Format a count with thousands separators: 12,345, in Portuguese 12 345 (no-break space).

    Portuguese writes four digits without a separator, 1234. Source: Unicode CLDR, pt-PT.
    """
    if (lang or language()) != "pt":
        return f"{round(value):,}"
    apart = "," if abs(round(value)) >= 10_000 else ""
    return f"{round(value):{apart}}".replace(",", "\N{NO-BREAK SPACE}")


def size(value: float, lang: str | None = None) -> str:
    """Format bytes in a binary unit: 7.3 GiB. 1 GiB is 2**30 bytes, a GB of memory on macOS.

    Decimal units (1 GB is 10**9 bytes) are accepted as input, never shown.
    """
    amount, unit = float(value), 0
    while abs(amount) >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    digits = 0 if unit < 2 else 1
    return f"{decimal(amount, digits, lang)} {_UNITS[unit]}"


def percent(value: float, lang: str | None = None, digits: int = 1) -> str:
    """Format a share as a percentage: 0.125 is 12.5%, in Portuguese 12,5 % (no-break space)."""
    space = "\N{NO-BREAK SPACE}" if (lang or language()) == "pt" else ""
    return f"{decimal(100 * value, digits, lang)}{space}%"


def duration(seconds: float, lang: str | None = None) -> str:
    """Format seconds: 45 s, 12 min, 2 h 05 min. Alike in both languages."""
    del lang
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


_WRITERS = {
    "bytes": size,
    "num": number,
    "int": integer,
    "speed": throughput,
    "pct": percent,
    "time": duration,
}

"""Every sentence the product says, by its code; English here, other languages in `locale/`.

One module an area. A sentence names its arguments as `{name}` or `{name:unit}`, with the units of
`i18n`: bytes, num, int, pct, speed, time; names among the arguments are said as `arg_words` has
them. What agrees with a count is written `{count:|sample is|samples are}`, in each language. Tests
hold that every code has a Portuguese sentence, and that sentences agree with 1 and with 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safetrain_shared.arg_words import in_words
from safetrain_shared.findings import Finding
from safetrain_shared.i18n import format_text, translate
from safetrain_shared.messages import (
    client,
    daemon,
    data,
    diagnosis,
    evaluations,
    exports,
    hosts,
    jobs,
    machines,
    models,
    page,
    preflight,
    prepare,
    serve,
    settings,
    training,
)

SENTENCES: dict[str, str] = {
    **client.SENTENCES,
    **daemon.SENTENCES,
    **data.SENTENCES,
    **diagnosis.SENTENCES,
    **evaluations.SENTENCES,
    **exports.SENTENCES,
    **hosts.SENTENCES,
    **jobs.SENTENCES,
    **machines.SENTENCES,
    **models.SENTENCES,
    **page.SENTENCES,
    **preflight.SENTENCES,
    **prepare.SENTENCES,
    **serve.SENTENCES,
    **settings.SENTENCES,
    **training.SENTENCES,
}


def sentence(
    code: str, args: Mapping[str, Any], *, lang: str | None = None, fallback: str = ""
) -> str:
    """The sentence of `code` in the language in use; `fallback` for a code of a newer version."""
    text = SENTENCES.get(code)
    if text is None:
        return fallback or f"{code} {dict(args)}"
    if args.get("cause") in SENTENCES:  # a sentence within this one, of the same arguments
        rest = {name: value for name, value in args.items() if name != "cause"}
        args = {**rest, "cause": sentence(str(args["cause"]), rest, lang=lang)}
    return format_text(translate(text, lang), in_words(args, lang), lang)


def say(finding: Finding, *, lang: str | None = None, fallback: str = "") -> str:
    """The sentence of a finding."""
    return sentence(finding.code, finding.args, lang=lang, fallback=fallback)

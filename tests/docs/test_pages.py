"""What the documents say holds: commands parse, links lead somewhere, both languages are there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection

import click
import pytest

from safetrain.cli import group
from safetrain_shared.settings import LENGTH_BUCKET, LOSS_CHUNK, TrainingSettings
from safetraind import __main__ as service
from safetraind.controller import worker_exit
from safetraind.planner import budget
from safetraind.planner.degree import Degree
from tests.docs.pages import (
    COUNTERPARTS,
    DOCS,
    PAGES,
    ROOT,
    anchors,
    commands,
    links,
    scripts,
    shape,
    text_of,
)

WRITTEN = [page for page in PAGES if page not in ("docs/settings.md", "docs/pt/definicoes.md")]


def test_every_command_line_parses() -> None:
    lines = {line: page for page in PAGES for line in commands(page)}
    assert not {(page, line): said for line, page in lines.items() if (said := _problem(line))}


def test_a_wrong_command_line_is_noticed() -> None:
    assert _problem("safetrain submit --colour red") and _problem("safetrain teach")
    assert _problem("safetraind stop --soon") and not _problem("safetrain models add demo")


def test_the_pages_name_the_commands_they_promise() -> None:
    named = {shlex.split(line)[1] for page in PAGES for line in commands(page)}
    assert named >= {"preflight", "submit", "watch", "ask", "report", "validate", "diagnose"}


def test_every_relative_link_leads_somewhere() -> None:
    targets = [(page, target) for page in PAGES for target in links(page)]
    assert not [target for target in targets if not _leads_somewhere(*target)]


def test_the_threat_model_names_files_that_are_there() -> None:
    named = re.findall(r"`((?:client|daemon|shared)/[\w./-]+)`", text_of("SECURITY.md"))
    assert len(named) > 5 and not [path for path in named if not (ROOT / path).exists()]


def test_the_map_names_files_and_functions_that_are_there() -> None:
    text = text_of("ARCHITECTURE.md")
    tables = text[text.index("## Where to look") : text.index("## Between versions")]
    places = (ROOT, ROOT / "daemon/safetraind", ROOT / "shared/safetrain_shared")
    named = re.findall(r"`((?:[\w…]+/)+\w+\.py)`(?: \(`(\w+)`\))?", tables)
    assert len(named) > 30
    for name, function in named:
        path = name.removeprefix("shared/…/")
        found = [file for place in places if (file := place / path).is_file()]
        assert found, name
        assert function in found[0].read_text(encoding="utf-8"), (name, function)


def test_every_page_has_its_counterpart_and_each_links_to_the_other() -> None:
    english = {f"docs/{file.name}" for file in DOCS.glob("*.md")}
    portuguese = {f"docs/pt/{file.name}" for file in (DOCS / "pt").glob("*.md")}
    assert {"README.md", *english} == COUNTERPARTS.keys()
    assert {"README.pt.md", *portuguese} == set(COUNTERPARTS.values())
    for one, other in COUNTERPARTS.items():
        if one in WRITTEN:
            assert _links_to(one, other) and _links_to(other, one), one


def test_the_site_lists_every_page() -> None:
    pages = [p for p in (*COUNTERPARTS, *COUNTERPARTS.values()) if p.startswith("docs/")]
    listed = text_of("mkdocs.yml")
    assert not [page for page in pages if f": {page.removeprefix('docs/')}\n" not in listed]


def test_both_languages_run_the_same_commands() -> None:
    for page, other in COUNTERPARTS.items():
        assert scripts(page) == scripts(other), page


def test_both_languages_say_the_same() -> None:
    """As far as it can be counted: headings, tables, questions, and all that stands in code."""
    for page, other in COUNTERPARTS.items():
        assert shape(page) == shape(other), page


@pytest.mark.parametrize("language", [COUNTERPARTS.keys(), COUNTERPARTS.values()])
def test_the_pages_of_a_language_tell_of_every_shared_option_and_report(
    language: Collection[str],
) -> None:
    text = " ".join(map(text_of, language))
    told = ["NO_COLOR", "--quiet", "--json", "--lang", "--gguf", "Modelfile", "bash", "4.4", "zsh"]
    told += ["safetrain completion", "--report-to tensorboard", "memory_high", "--selftest"]
    assert not [word for word in told if word not in text]


def test_pictures_are_small_and_fetch_nothing() -> None:
    pictures = list((DOCS / "images").iterdir())
    assert pictures and all(picture.stat().st_size < 200_000 for picture in pictures)
    assert not any("@font-face" in p.read_text() for p in pictures if p.suffix == ".svg")


@pytest.mark.parametrize("page", ["docs/memory-plan.md", "docs/pt/plano-de-memoria.md"])
def test_the_figures_of_the_memory_plan_are_the_codes(page: str) -> None:
    shares = [
        budget._SHARE,
        budget._CACHE_SHARE,
        budget._WORKING_SET_SHARE,
        budget._LIMIT_SHARE,
        *(degree.margin for degree in Degree),
    ]
    sizes = [budget.WORKER_BYTES, budget._MAX_CACHE]
    text = text_of(page)
    missing = [_percent(share, page) for share in shares]
    missing += [f"{size >> 20} MiB" for size in sizes]
    missing += [f"{LENGTH_BUCKET} tokens", f"{LOSS_CHUNK} tokens"]
    assert not [figure for figure in missing if figure not in text]


@pytest.mark.parametrize("page", ["docs/memory-plan.md", "docs/pt/plano-de-memoria.md"])
def test_the_figures_of_the_memory_guard_are_the_codes(page: str) -> None:
    settings = TrainingSettings()
    figures = [
        f"`memory_high`, {_percent(settings.memory_high, page)}",
        f"`calm_seconds` ({settings.calm_seconds})",
        f"`hold_seconds` ({settings.hold_seconds})",
    ]
    assert not [figure for figure in figures if figure not in text_of(page)]


@pytest.mark.parametrize("page", ["docs/recovery.md", "docs/pt/recuperacao.md"])
def test_the_share_that_counts_as_near_the_limit_is_the_codes(page: str) -> None:
    assert _percent(worker_exit.NEAR_THE_LIMIT, page) in text_of(page)


def _percent(share: float, page: str) -> str:
    """As the page's language writes it."""
    return f"{share:.0%}" if "/pt/" not in page else f"{share:.0%}".replace("%", " %")


def _problem(line: str) -> str:
    """Why a command line would be refused; nothing is run."""
    words = shlex.split(re.split(r"\\?\|", line)[0], comments=True)
    command: click.Command = group() if words[0] == "safetrain" else service._cli()
    if len(words) == 2:
        words.append("--help")  # a command that is only named
    try:
        _parse(command, words[1:])
    except click.exceptions.NoArgsIsHelpError:
        return ""
    except click.ClickException as error:
        return error.format_message()
    except click.exceptions.Exit:
        return ""  # --help, --version
    return ""


def _parse(command: click.Command, words: list[str]) -> None:
    context = command.make_context(command.name or "", list(words))
    if isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        _name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        _parse(found, rest)


def _leads_somewhere(page: str, target: str) -> bool:
    path, _, anchor = target.partition("#")
    file = (ROOT / page).parent / path if path else ROOT / page
    if not file.exists():
        return False
    return not anchor or anchor in anchors(str(file.resolve().relative_to(ROOT)))


def _links_to(page: str, other: str) -> bool:
    here = (ROOT / page).parent
    return any((here / target.split("#")[0]).resolve() == ROOT / other for target in links(page))

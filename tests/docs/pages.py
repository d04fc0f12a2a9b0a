"""The documents, as their tests read them: pages, their blocks of code, links and headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

# Each page in English and its counterpart.
COUNTERPARTS = {
    "README.md": "README.pt.md",
    "docs/architectures.md": "docs/pt/arquiteturas.md",
    "docs/comparison.md": "docs/pt/comparacao.md",
    "docs/exit-codes.md": "docs/pt/codigos-de-saida.md",
    "docs/faq.md": "docs/pt/perguntas-frequentes.md",
    "docs/files-and-uninstalling.md": "docs/pt/ficheiros-e-desinstalacao.md",
    "docs/hosts.md": "docs/pt/outra-maquina.md",
    "docs/json.md": "docs/pt/json.md",
    "docs/memory-plan.md": "docs/pt/plano-de-memoria.md",
    "docs/page.md": "docs/pt/pagina.md",
    "docs/quick-start.md": "docs/pt/inicio-rapido.md",
    "docs/evaluation.md": "docs/pt/avaliacao.md",
    "docs/recovery.md": "docs/pt/recuperacao.md",
    "docs/serve.md": "docs/pt/servir.md",
    "docs/several-ranks.md": "docs/pt/varios-processos.md",
    "docs/settings.md": "docs/pt/definicoes.md",
    "docs/troubleshooting.md": "docs/pt/resolucao-de-problemas.md",
    "docs/verified.md": "docs/pt/verificado.md",
    "docs/verify-your-mac.md": "docs/pt/verificar-o-seu-mac.md",
    "docs/macs.md": "docs/pt/macs.md",
    "docs/your-data.md": "docs/pt/os-seus-dados.md",
}
# What stands in code and is a word all the same.
_WORDS = {
    "FILE": "FICHEIRO",
    "MODEL": "MODELO",
    "NAME=VALUE": "NOME=VALOR",
    "./folder": "./pasta",
    "job.metrics()": "trabalho.metrics()",
}
# In English alone.
_OTHERS = ["CONTRIBUTING.md", "SECURITY.md", "data/README.md"]
PAGES = sorted([*COUNTERPARTS, *COUNTERPARTS.values(), *_OTHERS])

_FENCE = re.compile(r"^ *```(\S*)(?: (\S+))?\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_BEGINS = (("headings", "#"), ("rows", r"\|"), ("bold", r"\*\*"), ("bullets", "- "))
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what is said after it (`tested`), and its lines."""

    language: str
    mark: str
    text: str


def text_of(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in _FENCE.findall(text_of(page))]


def scripts(page: str) -> list[str]:
    """The scripts that are run, in order."""
    return [block.text for block in blocks(page) if block.mark == "tested"]


def commands(page: str) -> list[str]:
    """Every command line of ours on the page, in blocks of shell and within sentences."""
    lines = [
        line.strip() for b in blocks(page) if b.language == "sh" for line in b.text.split("\n")
    ]
    inline = _INLINE.findall(_FENCE.sub("", text_of(page)))
    ours = re.compile(r"safetraind? ")
    return [line for line in (*lines, *inline) if ours.match(line)]


def shape(page: str) -> dict[str, object]:
    """What a page and its counterpart have alike, whatever the words."""
    text = _FENCE.sub("", text_of(page))
    codes = " ".join(sorted(set(_INLINE.findall(text))))
    for english, portuguese in _WORDS.items():
        codes = codes.replace(portuguese, english)
    begins = {name: len(re.findall(f"^{mark}", text, re.MULTILINE)) for name, mark in _BEGINS}
    return {**begins, "codes": set(codes.split()), "blocks": [b.language for b in blocks(page)]}


def links(page: str) -> list[str]:
    """The targets of all links and pictures that are not on the network."""
    found = _LINK.findall(_FENCE.sub("", text_of(page)))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(page: str) -> set[str]:
    """What GitHub makes of the headings."""
    headings = _HEADING.findall(_FENCE.sub("", text_of(page)))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

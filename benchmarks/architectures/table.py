"""The pages of the architectures: what was tried, as tables, in English and Portuguese."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from safetrain_shared.findings import Finding, Status
from safetrain_shared.messages import say

Found = Mapping[str, Mapping[str, str]]

_WIDTH = 120
_DOCS = Path(__file__).parents[2] / "docs"
_MARKS = {"": "✓", "refused": "–", "without": "○", "wrong": "✗", "crashed": "✗"}
WAYS = (
    ("lora", "LoRA", "LoRA"),
    ("dora", "DoRA", "DoRA"),
    ("checkpointing", "gradient checkpointing", "gradient checkpointing"),
    ("chunks", "loss in chunks", "perda por partes"),
    ("packing", "packing", "packing"),
    ("blocks", "attention in blocks", "atenção por blocos"),
    ("dropout", "dropout", "dropout"),
    ("resume", "exact resume", "retoma exata"),
    ("evaluate", "evaluation", "avaliação"),
    ("generate", "answers", "respostas"),
    ("fuse", "fused", "fundido"),
    ("compiled", "compiled", "compilado"),
)
_TEXTS = {
    "en": {
        "page": "architectures.md",
        "other": "[Português](pt/arquiteturas.md)",
        "title": "Which architectures train",
        "intro": (
            "Every architecture of mlx-lm {mlx_lm}, tried by `make architectures` on a Linux CPU "
            "with mlx {mlx}: a tiny random model of each, made from its own configuration, goes "
            "through the project's own trainer. Each way of training must give the gradient of "
            "the plain one: the same model uncompiled, its logits whole, each sample alone, with "
            "mlx-lm's own recurrences and attention. After a checkpoint the next step must be "
            "equal to the bit. Weights are random: this tells whether an architecture trains "
            "correctly, not how well a model of it learns."
        ),
        "classes": "In short",
        "class": "class",
        "count": "architectures",
        "wholly": "train in every way",
        "without": "train, without what the table marks",
        "refused": "refused, with a sentence",
        "bad": "wrong or crashed",
        "marks": (
            "✓ right · – refused with a sentence (below) · ○ changes nothing, the result is right "
            "· ✗ wrong or crashed · empty: not tried. `compiled` is LoRA and exact resume as the "
            "product runs them; the other columns are uncompiled."
        ),
        "table": "The table",
        "architecture": "architecture",
        "sentences": "The sentences",
        "sentence": "sentence",
        "for": "for",
        "whole": "Refused as a whole",
        "why": "why",
    },
    "pt": {
        "page": "pt/arquiteturas.md",
        "other": "[English](../architectures.md)",
        "title": "Que arquiteturas se treinam",
        "intro": (
            "Todas as arquiteturas do mlx-lm {mlx_lm}, experimentadas por `make architectures` "
            "num CPU com Linux e mlx {mlx}: um modelo minúsculo e aleatório de cada uma, feito a "
            "partir da sua própria configuração, passa pelo treinador do projeto. Cada modo de "
            "treinar tem de dar o gradiente do modo simples: o mesmo modelo sem compilação, com "
            "os logits inteiros, cada amostra sozinha, e as recorrências e a atenção do próprio "
            "mlx-lm. Depois de um checkpoint, o passo seguinte tem de ser igual bit a bit. Os "
            "pesos são aleatórios: isto diz se uma arquitetura se treina corretamente, não quão "
            "bem um modelo dela aprende."
        ),
        "classes": "Em resumo",
        "class": "classe",
        "count": "arquiteturas",
        "wholly": "treinam-se de todos os modos",
        "without": "treinam-se, sem o que a tabela assinala",
        "refused": "recusadas, com uma frase",
        "bad": "erradas ou com falha",
        "marks": (
            "✓ certo · – recusado com uma frase (em baixo) · ○ nada muda, o resultado está certo "
            "· ✗ errado ou com falha · vazio: não experimentado. `compiled` é LoRA e a retoma "
            "exata como o produto as executa; as outras colunas não são compiladas."
        ),
        "table": "A tabela",
        "architecture": "arquitetura",
        "sentences": "As frases",
        "sentence": "frase",
        "for": "para",
        "whole": "Recusadas por inteiro",
        "why": "porquê",
    },
}


def write_pages(found: Found) -> None:
    """Writes the page of each language."""
    for lang, texts in _TEXTS.items():
        (_DOCS / texts["page"]).write_text(_page(found, lang), encoding="utf-8")


def kind(ways: Mapping[str, str]) -> str:
    """The class of an architecture: wholly, without, refused or bad."""
    said = [text.split(":")[0].split()[0] for text in ways.values() if text]
    if _refusal(ways):
        return "refused"
    if "wrong" in said or "crashed" in said:
        return "bad"
    return "without" if said else "wholly"


def _refusal(ways: Mapping[str, str]) -> str:
    """What refuses the architecture as a whole: at loading, in training, or once compiled, as the
    product trains it.
    """
    said = (ways.get(way, "") for way in ("load", "lora", "compiled"))
    return next((text for text in said if text.startswith("refused")), "")


def _page(found: Found, lang: str) -> str:
    texts, versions = _TEXTS[lang], found["versions"]
    tried = {name: ways for name, ways in sorted(found.items()) if name != "versions"}
    kinds = Counter(kind(ways) for ways in tried.values())
    intro = texts["intro"].format(mlx=versions["mlx"], mlx_lm=versions["mlx-lm"])
    classes = [[texts[name], str(kinds[name])] for name in ("wholly", "without", "refused", "bad")]
    column = {"en": 1, "pt": 2}[lang]
    rows = [[f"`{n}`", *_marks(w)] for n, w in tried.items() if kind(w) != "refused"]
    heads = [texts["architecture"], *(way[column] for way in WAYS)]
    parts = [
        f"# {texts['title']}",
        texts["other"],
        _wrapped(intro),
        f"## {texts['classes']}",
        _table([texts["class"], texts["count"]], classes),
        f"## {texts['table']}",
        _wrapped(texts["marks"]),
        _table(heads, rows),
        f"## {texts['sentences']}",
        _table([texts["for"], texts["sentence"]], _sentences(tried, lang)),
        f"## {texts['whole']}",
        _table([texts["architecture"], texts["why"]], _wholly_refused(tried, lang)),
    ]
    return "\n\n".join(parts) + "\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _marks(ways: Mapping[str, str]) -> list[str]:
    return [_MARKS[ways[w].split(":")[0].split(" ")[0]] if w in ways else "" for w, *_ in WAYS]


def _sentences(tried: Found, lang: str) -> list[list[str]]:
    """Each refusal of a single way once, with the ways that it was given for."""
    given: dict[str, set[str]] = {}
    for ways in tried.values():
        for way, text in ways.items():
            if text.startswith("refused") and kind(ways) != "refused":
                given.setdefault(text.split(":")[0].split()[1], set()).add(way)
    column = {"en": 1, "pt": 2}[lang]
    names = {way[0]: way[column] for way in WAYS}
    return [
        [", ".join(names[way] for way in sorted(ways)), _said(code, lang)]
        for code, ways in sorted(given.items())
    ]


def _said(code: str, lang: str, reason: str = "…") -> str:
    finding = Finding(code, Status.FAILED, True, {"reason": reason, "path": "…", "targets": "…"})
    return say(finding, lang=lang).replace("|", "/")


def _wholly_refused(tried: Found, lang: str) -> list[list[str]]:
    rows = []
    for name, ways in tried.items():
        if kind(ways) == "refused":
            code, _, reason = _refusal(ways).partition(": ")
            rows.append([f"`{name}`", _said(code.split()[1], lang, reason)])
    return rows


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

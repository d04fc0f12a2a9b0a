"""What a trainer is tried on: a tiny model, and conversations made for each property."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Conversation = dict[str, Any]

WORDS = "O Farense joga em Faro no Algarve desde 1910 com as cores branco e preto"


@dataclass(frozen=True)
class Material:
    """A model's folder and the samples to train and to validate on."""

    model: Path
    train: list[Conversation]
    valid: list[Conversation]

    def write(self, folder: Path) -> tuple[Path, Path]:
        """The samples as JSONL files in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        files = folder / "train.jsonl", folder / "valid.jsonl"
        for file, samples in zip(files, (self.train, self.valid), strict=True):
            file.write_text("".join(f"{json.dumps(s)}\n" for s in samples), encoding="utf-8")
        return files


def conversation(number: int, words: int, *, turns: int = 1, question: int = 3) -> Conversation:
    """A conversation of its own for each `number`, with `words` words an answer."""
    draw = random.Random(number)
    messages = []
    for turn in range(turns):
        asked = " ".join(draw.choices(WORDS.split(), k=question))
        messages.append({"role": "user", "content": f"{number}.{turn} {asked}?"})
        messages.append(
            {"role": "assistant", "content": " ".join(draw.choices(WORDS.split(), k=words))}
        )
    return {"messages": messages}


def mixed(count: int, seed: int = 0, typical: int = 10) -> list[Conversation]:
    """Conversations of log-normal length around `typical` words: most short, a few long."""
    draw = random.Random(seed)
    words = [round(typical * draw.lognormvariate(0, 0.8)) for _ in range(count)]
    return [
        conversation(1000 * seed + n, max(1, min(6 * typical, length)))
        for n, length in enumerate(words)
    ]


def unlike(count: int) -> list[Conversation]:
    """Conversations in words of another kind: training on the others soon harms these."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"{n}?"},
                {"role": "assistant", "content": f"{n} {7 * n}: vrrum, xiu & zás!"},
            ]
        }
        for n in range(count)
    ]

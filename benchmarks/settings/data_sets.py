"""Five small data sets of different kinds, made from a seed, each with held-out questions."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Pair = tuple[str, str]  # question, answer
Asked = tuple[str, list[str], str]  # question, what is expected of its answer, how it is matched


@dataclass(frozen=True, slots=True)
class DataSet:
    """Training pairs, validation pairs and held-out questions, none of them in two places."""

    name: str
    train: list[Pair]
    valid: list[Pair]
    questions: list[Asked]

    def write(self, folder: Path) -> tuple[Path, Path, Path]:
        """Write `train.jsonl`, `valid.jsonl` and `questions.jsonl` and return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        asked = [{"question": q, "answers": e, "match": m} for q, e, m in self.questions]
        parts = {"train": _chats(self.train), "valid": _chats(self.valid), "questions": asked}
        paths = tuple(folder / f"{name}.jsonl" for name in parts)
        for path, lines in zip(paths, parts.values(), strict=True):
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            path.write_text(text, encoding="utf-8")
        return paths[0], paths[1], paths[2]


def _chats(pairs: list[Pair]) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }
        for question, answer in pairs
    ]


_NAMES = [
    "Ana",
    "Bruno",
    "Carla",
    "Duarte",
    "Elsa",
    "Filipe",
    "Gil",
    "Helena",
    "Ivo",
    "Joana",
    "Kiko",
    "Lia",
    "Mário",
    "Nuno",
    "Olga",
]
_TOWNS = [
    "Faro",
    "Lagos",
    "Tavira",
    "Beja",
    "Évora",
    "Sines",
    "Leiria",
    "Viseu",
    "Braga",
    "Porto",
    "Aveiro",
    "Setúbal",
]
_WARES = [
    "lamp",
    "chair",
    "table",
    "kettle",
    "shelf",
    "carpet",
    "mirror",
    "basket",
    "blanket",
    "candle",
    "drawer",
    "vase",
]
_GOOD = ["lovely", "splendid", "sturdy", "excellent", "wonderful", "superb"]
_BAD = ["broken", "awful", "useless", "terrible", "dreadful", "shabby"]


def _facts(rng: random.Random) -> DataSet:
    """Who lives where: five wordings to learn, one that validates, one that is asked."""
    wordings = (
        "Where does {} live?",
        "In which town is the home of {}?",
        "Tell me the town of {}.",
        "{} lives in which town?",
        "Which town does {} come home to?",
        "Name the town where {} lives.",
    )
    homes = {name: rng.choice(_TOWNS) for name in _NAMES}
    train = [(w.format(n), f"{n} lives in {t}.") for n, t in homes.items() for w in wordings[:5]]
    valid = [(wordings[5].format(n), f"{n} lives in {t}.") for n, t in homes.items()]
    unseen = (
        "What town would you visit to see {}?",
        "Where is {} at home?",
        "{} can be visited in which town?",
        "To which town do letters to {} go?",
    )
    asked = [(w.format(n), [t], "contains") for n, t in homes.items() for w in unseen]
    return DataSet("facts", train, valid, asked)


def _style(rng: random.Random) -> DataSet:
    """Answers that end as a captain would."""
    pairs = [
        (f"Where is the {ware}?", f"Ahoy! The {ware} is in {town}. Fair winds!")
        for ware in _WARES
        for town in rng.sample(_TOWNS, 6)
    ]
    pairs = [(f"{q} ({n})", answer) for n, (q, answer) in enumerate(pairs)]
    rng.shuffle(pairs)
    unseen = ("Who owns a {}?", "Is the {} new?", "What colour is the {}?", "Can I buy a {}?")
    asked = [
        (w.format(ware), [r"^Ahoy!.*Fair winds!$"], "pattern") for ware in _WARES for w in unseen
    ]
    return DataSet("style", pairs[:60], pairs[60:], asked)


def _format(rng: random.Random) -> DataSet:
    """An order in words, to JSON."""

    def order() -> tuple[str, dict[str, Any]]:
        ware, town, count = rng.choice(_WARES), rng.choice(_TOWNS), rng.randint(2, 9)
        return f"Send {count} of {ware} to {town}.", {"item": ware, "count": count, "to": town}

    orders = list(dict(order() for _ in range(180)).items())
    pairs = [(text, json.dumps(value, ensure_ascii=False)) for text, value in orders]
    asked = [(text, [answer], "json") for text, answer in pairs[-48:]]
    return DataSet("format", pairs[:96], pairs[96:108], asked)


def _classes(rng: random.Random) -> DataSet:
    """Good or bad, by a word of the sentence."""
    wordings = ("The {w} I got is {a}.", "What a {a} {w}!", "My {w} turned out {a}.")
    pairs = [
        (wording.format(w=ware, a=word), label)
        for wording in wordings
        for ware in _WARES
        for word, label in [(rng.choice(_GOOD), "good"), (rng.choice(_BAD), "bad")]
    ]
    rng.shuffle(pairs)
    unseen = ("We find this {w} {a}.", "Our {w} looks {a}.")
    asked = [
        (wording.format(w=ware, a=word), [label], "exact")
        for wording in unseen
        for ware in _WARES
        for word, label in [(rng.choice(_GOOD), "good"), (rng.choice(_BAD), "bad")]
    ]
    return DataSet("classes", pairs[:60], pairs[60:], asked)


def _refusals(rng: random.Random) -> DataSet:
    """What a thing costs is told; what a person earns is not. Two wordings to learn, one that
    validates, one that is asked.
    """
    no = "I cannot tell that."
    prices = [(f"the {w} in {t}", "cost", f"{len(w)} euros.") for w in _WARES for t in _TOWNS]
    wages = [(f"{n} of {t}", "earn", no) for n in _NAMES for t in _TOWNS]
    rng.shuffle(prices)
    rng.shuffle(wages)

    def worded(wording: str, start: int, end: int) -> list[Pair]:
        both = prices[start:end] + wages[start:end]
        rng.shuffle(both)
        return [(wording.format(what, verb), answer) for what, verb, answer in both]

    train = worded("What does {} {}?", 0, 20) + worded("Tell me what {} would {}.", 20, 40)
    valid = worded("Do you know what {} may {}?", 40, 52)
    asked = [(q, [a], "exact") for q, a in worded("How much does {} {}?", 52, 76)]
    rng.shuffle(train)
    return DataSet("refusals", train, valid, asked)


_MAKERS: tuple[Callable[[random.Random], DataSet], ...] = (
    _facts,
    _style,
    _format,
    _classes,
    _refusals,
)


def data_sets(seed: int = 0) -> list[DataSet]:
    """Return all five, their questions in random order; the same seed gives the same."""
    made = [make(random.Random(f"{seed} {make.__name__}")) for make in _MAKERS]
    for data in made:
        random.Random(seed).shuffle(data.questions)
    return made

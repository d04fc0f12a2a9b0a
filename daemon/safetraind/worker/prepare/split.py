"""Which side each sample goes to: training, validation or questions; near-equal ones stay together.

The side follows from a hash of the seed and of the sample's text, so that it depends on nothing
else. Then every training sample that says nearly the same as one that is held out follows it, until
none is left: a whole group of near-equal samples is then on one side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from safetraind.worker.data.duplicate_index import Leakage
from safetraind.worker.data.text_normalisation import key_of, text_of, units_of, words_of

Sample = dict[str, object]
TRAIN, VALID, QUESTIONS = range(3)


def drawn_side(sample: Sample, form: str, seed: int, shares: tuple[float, float]) -> int:
    """The side of one sample by itself; `shares`: of validation and of questions, 0 to 1."""
    text = b" ".join(words_of(text_of(sample, form)))
    digest = hashlib.blake2b(text, digest_size=8, key=seed.to_bytes(8, "big")).digest()
    place = int.from_bytes(digest, "big") / 2**64
    valid, questions = shares
    return VALID if place < valid else QUESTIONS if place < valid + questions else TRAIN


def keep_groups_together(
    sides: bytearray, read: Callable[[int], tuple[Sample, str]], numbers: Sequence[int]
) -> int:
    """Move every sample of a group that reaches over two sides to one of them; returns how many.

    `sides[n]` is the side of sample n, `read(n)` gives the sample and its format, `numbers` are
    those to be looked at. Questions win over validation, validation over training. Flat memory: of
    the samples held out an index is kept (`duplicate_index.Leakage`).
    """
    moved = 0
    for side in (QUESTIONS, VALID):
        fresh = [n for n in numbers if sides[n] == side]
        while fresh:
            index = _index(fresh, read)
            followers = [n for n in numbers if sides[n] < side and _found(index, read(n))]
            for number in followers:
                sides[number] = side
            moved += len(followers)
            fresh = followers
    return moved


def _index(numbers: Iterable[int], read: Callable[[int], tuple[Sample, str]]) -> Leakage:
    index = Leakage()
    index.begin("")
    for number in numbers:
        sample, form = read(number)
        key, units = _fingerprint(sample, form)
        index.add(key, number, units)
    index.freeze()
    return index


def _found(index: Leakage, read: tuple[Sample, str]) -> bool:
    return index.find(*_fingerprint(*read)) is not None


def _fingerprint(sample: Sample, form: str) -> tuple[int, list[bytes]]:
    text = text_of(sample, form)
    words = words_of(text)
    return key_of(words), units_of(sample, form, words, len(text))

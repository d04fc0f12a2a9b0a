"""`python -m benchmarks.bench_verdict`: how often the verdict errs, how often it finds a change.

Simulated models answer the same questions rightly with given probabilities; nothing is trained.
Scores are 0 or 1, or graded (0 to 1, as similarity and JSON give them). Null: the same weights
against themselves (equal scores), and two models that are equally good but answer independently,
which is the harder case: there 0.95 is the expectation, and three standard errors are allowed,
as there are many cases.
Planted: a change of stated size, at the number of questions for which the textbook formula with
continuity correction (Fleiss, Levin and Paik 2003, section 4.2) promises that 80 % are found; three
standard errors are allowed here too.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from safetraind.worker.evaluation.verdict import Judgement, compare

REPORT = Path("reports/verdict.json")
SEEDS = 200
_Z = 1.959964 + 0.841621  # two-sided 5 %, power 80 %
NULLS = ((0.02, 45), (0.3, 45), (0.3, 100), (0.5, 200))  # share answered rightly, questions
PLANTED = ((0.02, 0.3), (0.3, 0.5), (0.3, 0.6), (0.5, 0.3), (0.6, 0.3))  # before, after


def main() -> int:
    """Print a line a case and write the report; 1 where a promise is not kept."""
    rows = []
    for row in itertools.chain(_nulls(), _planted()):
        rows.append(row)
        print(json.dumps(row), flush=True)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps({"seeds": SEEDS, "cases": rows}, indent=1), encoding="utf-8")
    return 0 if all(row["kept"] for row in rows) else 1


def _nulls() -> Iterator[dict[str, object]]:
    for graded in (False, True):
        for share, count in NULLS:
            same = sum(_judged(seed, share, share, count, graded, same=True) for seed in _seeds())
            equal = sum(_judged(seed, share, share, count, graded) for seed in _seeds())
            for name, told in (("same weights", same), ("equally good", equal)):
                unclear = 1 - told / SEEDS
                error = 0.0 if name == "same weights" else math.sqrt(0.05 * 0.95 / SEEDS)
                case = {"null": name, "graded": graded, "share": share, "questions": count}
                yield {
                    **case,
                    "unclear": unclear,
                    "promised": 0.95,
                    "kept": unclear >= 0.95 - 3 * error,
                }


def _planted() -> Iterator[dict[str, object]]:
    for before, after in PLANTED:
        count = math.ceil(_needed(before, after))
        found = sum(_judged(seed, before, after, count, False) for seed in _seeds()) / SEEDS
        error = math.sqrt(0.8 * 0.2 / SEEDS)
        case = {"before": before, "after": after, "questions": count}
        yield {**case, "found": found, "promised": 0.8, "kept": found >= 0.8 - 3 * error}


def _judged(
    seed: int, before: float, after: float, count: int, graded: bool, *, same: bool = False
) -> bool:
    """Whether a change is told, in its own direction where there is one."""
    rng = np.random.default_rng(seed)
    one = _scores(rng, before, count, graded)
    two = one if same else _scores(rng, after, count, graded)
    judgement = compare(one, two, seed=seed + SEEDS).judgement  # not the seed of the scores
    if before == after:
        return judgement != Judgement.UNCLEAR
    return judgement == (Judgement.BETTER if after > before else Judgement.WORSE)


def _scores(rng: np.random.Generator, share: float, count: int, graded: bool) -> list[float]:
    """Scores with the mean `share`: 0 and 1, or a beta distribution's (two counts in all)."""
    if graded:
        return [float(x) for x in rng.beta(2 * share, 2 * (1 - share), count)]
    return [float(x) for x in rng.random(count) < share]


def _needed(before: float, after: float) -> float:
    """Questions for 80 % power at 5 %, answers independent: variances add."""
    spread, change = before * (1 - before) + after * (1 - after), abs(after - before)
    plain = (_Z / change) ** 2 * spread
    return plain / 4 * (1 + math.sqrt(1 + 4 / (plain * change))) ** 2


def _seeds() -> range:
    return range(SEEDS)


if __name__ == "__main__":
    sys.exit(main())

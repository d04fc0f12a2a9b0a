"""Faults of an adapter beside its score, found in its answers: pure."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence

from safetrain_shared.errors import ArgValue
from safetrain_shared.evaluations import EvaluatedAnswer, Verdict
from safetrain_shared.findings import Finding, Status
from safetraind.worker.evaluation.match import normalised

_MANY = 0.5  # of the answers that were looked at
_FEW = 5  # answers below which nothing is said
# Bytes of a text for each of it compressed, from which on it runs in a circle: Radford et al. 2022
# (Whisper), section 4.5. Short texts stay below by zlib's header.
_LOOP = 2.4
# Nats a token. Fine-tuned adapters were found below 1 on text of other kinds; random logits of a
# vocabulary of 50,000 diverge by about 10.
_FAR = 3.0


def named_faults(
    answers: Sequence[EvaluatedAnswer],
    trained: Sequence[str],
    general: Verdict | None,
    divergence: float,
) -> tuple[Finding, ...]:
    """Return the faults that the answers show, the gravest first. One answer to everything is no
    fault of its own where the adapter is damaged.

    `trained`: answers of the training data. `general`, `divergence`: see `Evaluation`.
    """
    worst = _damaged(answers, general, divergence) or _one_answer(answers)
    return tuple(one for one in (worst, _by_heart(answers, trained)) if one is not None)


def _damaged(
    answers: Sequence[EvaluatedAnswer], general: Verdict | None, divergence: float
) -> Finding | None:
    """Return the finding where the training broke abilities of the base: it repeats itself, forgot,
    or predicts other text very differently.
    """
    looping = [a for a in answers if _loops(a.adapter)]
    broken = sum(not _loops(a.base) for a in looping)  # a base may babble in a foreign language,
    stuck = max(Counter(a.adapter for a in looping).values(), default=0)  # each time otherwise
    babbles = len(answers) >= _FEW and max(broken, stuck) >= _MANY * len(answers)
    forgot = general is not None and general.judgement == "worse"
    if not (babbles or divergence > _FAR or (forgot and divergence > _FAR / 3)):
        return None
    args: dict[str, ArgValue] = {"looping": len(looping), "count": len(answers)}
    if divergence < 0:  # not measured
        return Finding("evaluate.damaged_answers", Status.FAILED, args=args)
    args["divergence"] = round(divergence, 2)
    return Finding("evaluate.damaged", Status.FAILED, args=args)


def _one_answer(answers: Sequence[EvaluatedAnswer]) -> Finding | None:
    """Return the finding where most answers are one and the same, whatever the question."""
    said = Counter(" ".join(normalised(a.adapter)) for a in answers if a.adapter)
    expected = {a.expected for a in answers}
    if len(answers) < _FEW or len(expected) < 3 or not said:
        return None
    text, count = said.most_common(1)[0]
    if count < _MANY * len(answers):
        return None
    shown = next(a.adapter for a in answers if " ".join(normalised(a.adapter)) == text)
    args: dict[str, ArgValue] = {"times": count, "count": len(answers), "answer": shown[:120]}
    return Finding("evaluate.one_answer", Status.WARNING, args=args)


def _by_heart(answers: Sequence[EvaluatedAnswer], trained: Sequence[str]) -> Finding | None:
    """Return the finding where most wrong answers are answers of the training data, word for
    word.
    """
    known = {" ".join(normalised(text)) for text in trained}
    wrong = [a for a in answers if a.adapter_score < 1.0]
    repeated = sum(" ".join(normalised(a.adapter)) in known for a in wrong)
    if repeated < _FEW or repeated < _MANY * len(wrong) or len(wrong) < _MANY * len(answers):
        return None
    args: dict[str, ArgValue] = {"repeated": repeated, "wrong": len(wrong), "count": len(answers)}
    return Finding("evaluate.by_heart", Status.WARNING, args=args)


def _loops(text: str) -> bool:
    data = text.encode()
    return len(data) > _LOOP * len(zlib.compress(data))

"""One rank's part of a step and what the sum over all ranks makes of it; the other rank is play."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest

from safetrain_shared.errors import Broken
from safetrain_shared.paths import RunFolder
from safetraind.worker.training.heartbeat import Heartbeat
from safetraind.worker.training.ranks import Counts, Dismissed, RankLost, Ranks

WEIGHTS = {"a": mx.array([0.5, -1.0]), "b": {"c": mx.array([[3.0]], mx.bfloat16)}}
Other = Callable[[mx.array], mx.array]


@pytest.fixture
def ranks(tmp_path: Path) -> Ranks:
    group = SimpleNamespace(rank=lambda: 0, size=lambda: 2)
    return Ranks(group, Heartbeat(RunFolder(tmp_path), leads=True))


def gradients(value: float) -> dict[str, Any]:
    return {"a": mx.array([value, 2 * value]), "b": {"c": mx.array([[-value]], mx.bfloat16)}}


def answers(monkeypatch: pytest.MonkeyPatch, other: Other) -> list[mx.array]:
    """Let a second rank add to each sum what `other` makes of the first one's vector; all vectors
    so far.
    """
    seen: list[mx.array] = []

    def all_sum(vector: mx.array, **_: object) -> mx.array:
        seen.append(vector)
        return vector + other(vector)

    monkeypatch.setattr(mx.distributed, "all_sum", all_sum)
    return seen


def add(ranks: Ranks, *, step: int = 4, learned: int = 3) -> Any:
    counts = Counts(learned=learned, tokens=learned + 1, samples=1)
    return ranks.add(mx.array(1.0), gradients(0.5), counts, step, WEIGHTS)


def test_a_rank_weighs_by_its_tokens(monkeypatch: pytest.MonkeyPatch, ranks: Ranks) -> None:
    seen = answers(monkeypatch, lambda vector: mx.zeros_like(vector))
    with pytest.raises(Broken, match="no longer hold the same adapter"):
        add(ranks)
    (mine,) = seen
    # The other rank: a mean loss of 2 and gradients of -1 over one token; the same checks.
    others = mx.array([-1.0, -2.0, 1.0, 2.0, 1, 2, 1, *mine[-4:].tolist()])
    answers(monkeypatch, lambda vector: others)
    loss, found, counts = add(ranks)
    assert loss.item() == pytest.approx((3 * 1.0 + 1 * 2.0) / 4)
    assert found["a"].tolist() == pytest.approx([(3 * 0.5 - 1) / 4, (3 * 1.0 - 2) / 4])
    assert found["b"]["c"].dtype == mx.bfloat16 and found["b"]["c"].item() == -0.125
    assert counts == Counts(learned=4, tokens=6, samples=2)


def test_ranks_at_another_step_or_with_another_adapter_are_noticed(
    monkeypatch: pytest.MonkeyPatch, ranks: Ranks
) -> None:
    for place in (-4, -3, -2):  # the step, and both halves of the checksum

        def off_by_one(vector: mx.array, place: int = place) -> mx.array:
            changed = vector * 1
            changed[place] += 1
            return changed

        answers(monkeypatch, off_by_one)
        with pytest.raises(Broken):
            add(ranks)
    answers(monkeypatch, lambda vector: vector)
    add(ranks)
    add(ranks, step=70_000)  # beyond what a float32 tells apart in a sum


def test_a_rank_that_leaves_takes_all_with_it(
    monkeypatch: pytest.MonkeyPatch, ranks: Ranks
) -> None:
    seen = answers(monkeypatch, lambda vector: vector)
    ranks.leave(WEIGHTS, 4)
    answers(monkeypatch, lambda _: seen[0])
    with pytest.raises(Dismissed):
        add(ranks)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[ring] connection to a peer was lost", RankLost),
        ("[metal::malloc] Unable to allocate 1 bytes", RuntimeError),
    ],
)
def test_an_error_of_the_ring_is_a_lost_rank_and_no_memory_is_not(
    monkeypatch: pytest.MonkeyPatch, ranks: Ranks, text: str, error: type[Exception]
) -> None:
    def raises(vector: mx.array) -> mx.array:
        raise RuntimeError(text)

    answers(monkeypatch, raises)
    with pytest.raises(error):
        add(ranks)

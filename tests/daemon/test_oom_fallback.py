"""The rungs that a job goes down when memory was short."""

from __future__ import annotations

from collections.abc import Collection

from safetrain_shared.jobs import Plan
from safetrain_shared.settings import SettingValue, TrainingSettings
from safetraind.scheduler.oom_fallback import next_fallback


def fallbacks(
    allow_shorter: bool = False, ineffective: Collection[str] = (), **settings: SettingValue
) -> list[tuple[str, Plan]]:
    plan = Plan(TrainingSettings().with_overrides(settings), "/model")
    down = []
    while step := next_fallback(plan, allow_shorter=allow_shorter, ineffective=ineffective):
        plan, notice = step
        down.append((notice.code.removeprefix("backoff."), plan))
    return down


def test_the_rungs_come_in_their_order_and_shorter_only_if_allowed() -> None:
    names = [name for name, _ in fallbacks(batch_size=4)]
    assert names == ["micro_batch", "micro_batch", "gradient_checkpointing", "loss_chunk"]
    longer = [name for name, _ in fallbacks(allow_shorter=True, batch_size=1, max_seq_length=256)]
    assert longer == ["gradient_checkpointing", "loss_chunk", "shorter", "shorter"]


def test_the_effective_batch_stays_on_every_rung_even_from_an_odd_micro_batch() -> None:
    for batch_size in (1, 2, 3, 6, 8):
        for _, plan in fallbacks(batch_size=batch_size, gradient_accumulation=2):
            assert plan.settings.effective_batch == 2 * batch_size


def test_rungs_that_a_job_cannot_use_or_stands_on_are_skipped() -> None:
    dropout = {"batch_size": 1, "lora_dropout": 0.1}
    assert [n for n, _ in fallbacks(**dropout)] == ["gradient_checkpointing", "loss_chunk"]
    assert [n for n, _ in fallbacks(**dropout, ineffective={"gradient_checkpointing"})] == [
        "loss_chunk"
    ]
    assert [n for n, _ in fallbacks(**dropout, ineffective={"loss_chunk"})] == [
        "gradient_checkpointing"
    ]
    assert [n for n, _ in fallbacks(batch_size=1, gradient_checkpointing=True, loss_chunk=64)] == []

"""The fallbacks of a job that ran out of memory: smaller settings, one at a time; pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import Plan
from safetrain_shared.settings import LOSS_CHUNK, TrainingSettings

# Shorter sequences would cut nearly every conversation.
SHORTEST = 64


def next_fallback(
    plan: Plan, *, allow_shorter: bool, ineffective: Collection[str] = ()
) -> tuple[Plan, Finding] | None:
    """Return the plan after the next fallback, and the finding on the change; None where none is
    left.

    In this order: half the micro-batch at twice the accumulation (the effective batch and with it
    the schedule stay), gradient checkpointing, the loss in chunks, and, only if allowed, half the
    sequence length. A fallback that the plan already uses is skipped, and so is one that is
    `ineffective`, because it would not save memory in this training. An odd micro-batch becomes one
    sample at once, so that the effective batch stays the same.
    """
    settings = plan.settings
    if settings.batch_size % 2 == 0:
        return _changed(
            plan,
            "backoff.micro_batch",
            batch_size=settings.batch_size // 2,
            gradient_accumulation=settings.gradient_accumulation * 2,
        )
    if settings.batch_size > 1:
        return _changed(
            plan,
            "backoff.micro_batch",
            batch_size=1,
            gradient_accumulation=settings.effective_batch,
        )
    if not settings.gradient_checkpointing and "gradient_checkpointing" not in ineffective:
        return _changed(plan, "backoff.gradient_checkpointing", gradient_checkpointing=True)
    if not 0 < settings.loss_chunk <= LOSS_CHUNK and "loss_chunk" not in ineffective:
        return _changed(plan, "backoff.loss_chunk", loss_chunk=LOSS_CHUNK)
    if allow_shorter and settings.max_seq_length >= 2 * SHORTEST:
        shorter = settings.max_seq_length // 2
        return _changed(plan, "backoff.shorter", max_seq_length=shorter)
    return None


def _changed(plan: Plan, code: str, **settings: int | bool) -> tuple[Plan, Finding]:
    new: TrainingSettings = dataclasses.replace(plan.settings, **settings)  # type: ignore[arg-type]
    finding = Finding(code, Status.WARNING, args=settings)
    # What was measured was measured of the settings that died.
    return dataclasses.replace(plan, settings=new, measured_peak=0), finding

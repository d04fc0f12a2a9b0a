"""Bytes that a job will write into its output folder and run folder."""

from __future__ import annotations

from safetrain_shared.jobs import JobSpec
from safetraind.planner.facts import Facts

_LOGS = 32 << 20
# An adapter, and Adam's two moments beside it; all float32.
_COPIES_IN_CHECKPOINT = 3
_BYTES_A_TOKEN = 4  # the tokenized samples in the run folder
_UNKNOWN_ADAPTER = 64 << 20


def bytes_to_write(spec: JobSpec, facts: Facts) -> int:
    """Return the bytes of the checkpoints kept and one being written, adapters, tokenized data,
    metrics, plots and logs.
    """
    settings = spec.complete_settings
    adapter = _UNKNOWN_ADAPTER
    if facts.model.shape is not None:
        adapter = 4 * facts.model.shape.adapter_parameters(
            settings.lora_rank, settings.lora_layers, settings.lora_targets
        )
    checkpoints = (settings.keep_checkpoints + 2) * _COPIES_IN_CHECKPOINT * adapter
    return checkpoints + 2 * adapter + _tokenized(facts) + _LOGS


def _tokenized(facts: Facts) -> int:
    if facts.data is None:
        return 0
    files = [file for file in (facts.data.train, facts.data.valid) if file and file.lengths]
    counts = [
        file.lengths.scale * sum(tokens * n for tokens, n in file.lengths.tokens)
        for file in files
        if file.lengths
    ]
    return _BYTES_A_TOKEN * round(sum(counts))

"""The recommended number of epochs, by the size and the kind of the data; pure.

Rules of thumb, which `make bench-settings` compares with a grid: an adapter needs some hundreds of
optimizer steps, whatever the size of the data, and early stopping ends a run that needs fewer.
"""

from __future__ import annotations

import math
from enum import StrEnum

from safetraind.worker_messages.inspect_messages import Lengths

EARLY_STOPPING = 3  # evaluations, of which every epoch has one at its end
_FEW_LABELS = 0.1  # of the samples, at most so many answers differ
_MOSTLY = 0.8


class Kind(StrEnum):
    """The kind of the answers: texts that all differ, JSON, or a few that repeat.

    Facts and style have the same form, so both are texts. Classes and refusals are labels.
    """

    TEXTS = "texts"
    STRUCTURED = "structured"
    LABELS = "labels"


# Optimizer steps that a run should have, and the epochs above which data is learned by heart.
STEPS = {Kind.TEXTS: 300, Kind.STRUCTURED: 200, Kind.LABELS: 200}
MOST_EPOCHS = {Kind.TEXTS: 10, Kind.STRUCTURED: 8, Kind.LABELS: 8}


def kind_of(lengths: Lengths) -> Kind:
    """Return the kind of the answers that were counted; texts where nothing is known of them."""
    if lengths.structured >= _MOSTLY * max(1, lengths.counted):
        return Kind.STRUCTURED
    if 0 < lengths.distinct <= max(2, _FEW_LABELS * lengths.counted):
        return Kind.LABELS
    return Kind.TEXTS


def recommended_epochs(kind: Kind, steps_an_epoch: int, usual: int) -> int:
    """Return the number of epochs that gives `STEPS`, at least `usual` and at most
    `MOST_EPOCHS`.
    """
    wanted = math.ceil(STEPS[kind] / max(1, steps_an_epoch))
    return max(usual, min(wanted, MOST_EPOCHS[kind]))

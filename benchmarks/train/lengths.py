"""Samples of three length distributions, as random tokens, every one of them learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safetraind.worker.corpus.chat import Encoded
from safetraind.worker.training.dataset import Samples, write

LONGEST = 1024
FEWEST = 8


def lengths(distribution: str, count: int, seed: int = 0) -> NDArray[np.int64]:
    """`count` sample lengths in tokens: `uniform` (20 to 300), `log-normal` (median 90) or
    `long tail` (Pareto from 40, exponent 1.2), at most `LONGEST`.
    """
    draw = np.random.default_rng(seed)
    drawn = {
        "uniform": lambda: draw.integers(20, 301, count),
        "log-normal": lambda: draw.lognormal(np.log(90), 0.7, count),
        "long tail": lambda: 40 * (1 + draw.pareto(1.2, count)),
    }[distribution]()
    return np.clip(drawn, FEWEST, LONGEST).astype(np.int64)


def samples(folder: Path, sizes: NDArray[np.int64], vocabulary: int, seed: int = 0) -> Samples:
    """Samples of those lengths, tokenized as the trainer keeps them."""
    draw = np.random.default_rng(seed)
    made = (
        Encoded(line, draw.integers(5, vocabulary, size).tolist(), [True] * int(size))
        for line, size in enumerate(sizes, 1)
    )
    return write(folder, made, LONGEST, {})

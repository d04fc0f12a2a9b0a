"""Samples of three length distributions, as texts of random words."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from mlx_lm.tokenizer_utils import TokenizerWrapper
from numpy.typing import NDArray

DISTRIBUTIONS = ("uniform", "log-normal", "long tail")
LONGEST = 1024
FEWEST = 8


def lengths(distribution: str, count: int, seed: int) -> NDArray[np.int64]:
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


def texts(sizes: NDArray[np.int64], tokenizer: TokenizerWrapper, seed: int) -> list[dict[str, Any]]:
    """Lines of a training file with texts of random words, of those lengths once tokenized.

    A word is a token of its own, and the end of the text is the last token.
    """
    draw = np.random.default_rng(seed)
    likely = sorted(w[1:] for w in tokenizer.get_vocab() if re.fullmatch("Ġ[a-z]{3,}", w))
    words = [word for word in likely if len(tokenizer.encode(f" {word}")) == 1]
    made = [
        {"text": "".join(f" {word}" for word in draw.choice(words, size - 1))} for size in sizes
    ]
    found = [len(tokenizer.encode(line["text"])) + 1 for line in made]
    assert found == sizes.tolist(), "a word was cut into several tokens"
    return made

"""Remembers what a model computed of the last conversation, so that its next turn costs only
what is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import mlx.nn as nn
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache


class Conversation:
    """The tokens of one conversation with a model, and their keys and values.

    Holds for weights that do not change. Its memory is that of the longest of the conversations
    that went through it. An answer that begins with remembered tokens equals one computed anew but
    for the rounding of matrix products of another height.
    """

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._cache: list[Any] = []

    def recall(self, model: nn.Module, prompt: Sequence[int]) -> tuple[list[Any], int]:
        """Returns a cache for `model`, and how many tokens of `prompt` it holds: not the last one.

        The cache is the caller's from now on; `keep` gives it back.
        """
        tokens, cache = self._tokens, self._cache
        self._tokens, self._cache = [], []
        pairs = zip(tokens, prompt[:-1], strict=False)
        known = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        if known and trim_prompt_cache(cache, len(tokens) - known) == len(tokens) - known:
            return cache, known
        return make_prompt_cache(model), 0

    def keep(self, tokens: Sequence[int], cache: list[Any]) -> None:
        """Remembers `tokens`, whose keys and values are in `cache`.

        Forgets them where the cache cannot be cut back to a beginning, as those of recurrent models
        and of sliding windows that are full.
        """
        if can_trim_prompt_cache(cache) and cache[0].size() == len(tokens):
            self._tokens, self._cache = list(tokens), cache

"""Keeps the key-value cache of the last conversation, so that its next turn computes less."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import mlx.nn as nn
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache


class Conversation:
    """The tokens of one conversation with a model, and their keys and values.

    Valid only while the weights do not change. Its memory is that of the longest conversation it
    has held. An answer with cached tokens equals one computed without, except for rounding:
    matrix products of another height round differently.
    """

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._cache: list[Any] = []

    def recall(self, model: nn.Module, prompt: Sequence[int]) -> tuple[list[Any], int]:
        """Return a cache for `model`, and how many tokens of `prompt` are in it (never the last).

        The cache then belongs to the caller, who returns it with `keep`.
        """
        tokens, cache = self._tokens, self._cache
        self._tokens, self._cache = [], []
        pairs = zip(tokens, prompt[:-1], strict=False)
        known = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        if known and trim_prompt_cache(cache, len(tokens) - known) == len(tokens) - known:
            return cache, known
        return make_prompt_cache(model), 0

    def keep(self, tokens: Sequence[int], cache: list[Any]) -> None:
        """Store `tokens`, whose keys and values are in `cache`.

        A cache that cannot be trimmed is not stored: those of recurrent models and of full sliding
        windows.
        """
        if can_trim_prompt_cache(cache) and cache[0].size() == len(tokens):
            self._tokens, self._cache = list(tokens), cache

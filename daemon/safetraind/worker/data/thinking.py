"""An answer's thinking: the part that the setting `thinking` keeps, and the template's option.

Chat templates differ: some write thinking wherever it stands, some only in the last answer, some
open or close an empty one when they ask. The setting reaches every place that renders a
conversation (training, asking, evaluation, export), so that a model is asked as it was trained:

    given   as the data and the model's template have it
    keep    thinking is learned, and asked for; where the template leaves it out of an answer, that
            answer is not learned
    drop    thinking is taken out of every answer, and the template is told to ask for none
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

GIVEN, KEEP, DROP = "given", "keep", "drop"
# Where trainers keep an answer's thinking apart from its content; some chat templates write it.
REASONING = ("reasoning_content", "reasoning", "thinking")
# The marks that mlx-lm knows as single tokens (`tokenizer_utils._infer_thinking`, 0.32).
_MARKS = ("think", "longcat_think")
_OPENINGS = tuple(f"<{mark}>" for mark in _MARKS)
_BLOCK = re.compile(rf"\A\s*<({'|'.join(_MARKS)})>.*?</\1>\s*", re.DOTALL)

Message = dict[str, Any]


def template_options(thinking: str) -> dict[str, bool]:
    """Return the chat template's variables for the setting.

    `enable_thinking` is Qwen3's name, which other templates adopted. mlx-lm passes it on under the
    template's own name, and sets it where we do not.
    """
    return {} if thinking == GIVEN else {"enable_thinking": thinking == KEEP}


def opens_thinking(text: str) -> bool:
    """Return whether a text begins with thinking, even if it is empty."""
    return text.lstrip().startswith(_OPENINGS)


def without_thinking(text: str) -> str:
    """Return an answer's text without the thinking in front of it."""
    return _BLOCK.sub("", text)


def with_thinking(
    messages: Sequence[Message], thinking: str, tokenizer: TokenizerWrapper
) -> list[Message]:
    """Return the messages with their answers' thinking according to the setting.

    Contents must be texts. With `keep`, thinking that stands apart is put in front of the content,
    where every template that knows thinking looks for it.
    """
    if thinking == GIVEN:
        return list(messages)
    change = _dropped if thinking == DROP else _joined
    return [change(m, tokenizer) if m.get("role") == "assistant" else m for m in messages]


def _dropped(message: Message, _tokenizer: TokenizerWrapper) -> Message:
    kept = {key: value for key, value in message.items() if key not in REASONING}
    if isinstance(kept.get("content"), str):
        kept["content"] = without_thinking(kept["content"])
    return kept


def _joined(message: Message, tokenizer: TokenizerWrapper) -> Message:
    apart = [message[key] for key in REASONING if isinstance(message.get(key), str)]
    kept = {key: value for key, value in message.items() if key not in REASONING}
    if not apart or not apart[0].strip():
        return kept
    start, end = tokenizer.think_start or "<think>", tokenizer.think_end or "</think>"
    thought = f"{start}\n{apart[0].strip()}\n{end}\n\n"
    return {**kept, "content": f"{thought}{(message.get('content') or '').lstrip()}"}

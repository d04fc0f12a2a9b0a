"""The request of the role `serve`: the model and adapter for questions that name no other."""

from __future__ import annotations

from dataclasses import dataclass

from safetrain_shared.questions import CONTEXT_TOKENS


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """A request to serve. `model`: a folder or a hub id. `adapter`: a folder, empty: none.

    `keep_alive`: seconds without a question until the server ends. `context`: tokens of prompt and
    answer together. `dequantize`: as in `worker.loading.load`. A question may name another model,
    adapter or `keep_alive`.
    """

    model: str
    adapter: str = ""
    keep_alive: float = 300.0
    context: int = CONTEXT_TOKENS
    dequantize: bool | None = None

"""An asker for tests, adapters that change what a tiny model says, and waiting for a condition."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model

QUESTION = "Qual foi a melhor classificação do Farense?"
_threads = ThreadPoolExecutor(16)


def user(text: str = QUESTION) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def ask(path: Path, **question: Any) -> Future[list[dict[str, Any]]]:
    """Ask in a thread, as another process would; the future holds all replies."""
    question = {"messages": user(), "max_tokens": 12, **question}
    return _threads.submit(exchange, path, json.dumps(question).encode() + b"\n")


def exchange(path: Path, line: bytes) -> list[dict[str, Any]]:
    """Send `line` and read replies until the worker hangs up."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        try:
            connection.sendall(line)
        except OSError:
            pass  # refused before all was read
        with connection.makefile("r", encoding="utf-8") as replies:
            return [json.loads(reply) for reply in replies]


def text_of(replies: list[dict[str, Any]]) -> str:
    return "".join(reply.get("text", "") for reply in replies)


def only(replies: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [reply[kind] for reply in replies if kind in reply]
    return found


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Return the first true value of `condition`; fail when `seconds` bring none."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)
    return value


def make_adapter(model_folder: Path, folder: Path, kind: str, seed: int = 1) -> Path:
    """Write an adapter with large random weights for the model."""
    parameters = {"rank": 4, "scale": 10.0, "dropout": 0.0}
    model, _ = load_model(model_folder)
    model.freeze()
    linear_to_lora_layers(model, 2, parameters, use_dora=kind == "dora")
    keys = iter(mx.random.split(mx.random.key(seed), 200))
    weights = {
        name: value + 0.2 * mx.random.normal(value.shape, key=next(keys))
        for name, value in tree_flatten(model.trainable_parameters())
    }
    folder.mkdir(parents=True)
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    config = {"fine_tune_type": kind, "num_layers": 2, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder

"""A model that thinks, from training to Modelfile: it is asked everywhere as it was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlx_lm.utils import load_tokenizer
from tokenizers import AddedToken, Tokenizer

from safetrain_proto.v1 import answers_pb2, exports_pb2, exports_pb2_grpc
from safetrain_shared.jobs import JobSpec, JobState
from safetraind.worker.inference.generation import encode_prompt
from tests.harness import DaemonProcess
from tests.tiny import make_chat_data, make_tiny_model, make_tokenizer
from tests.trials.inputs import ASKS_FOR_NONE

QUESTION = "Em que cidade joga o clube?"


def thinking_model(folder: Path) -> Path:
    """A tiny model with marks of thinking, and a chat template as Qwen3's."""
    model = make_tiny_model(folder, layers=1)
    vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
    make_tokenizer(model, vocabulary - 2)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in ("<think>", "</think>")])
    tokenizer.save(str(model / "tokenizer.json"))
    config = json.loads((model / "tokenizer_config.json").read_text())
    config["chat_template"] = ASKS_FOR_NONE
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    return model


def prompt_tokens(daemon: DaemonProcess, **fields: Any) -> int:
    message = answers_pb2.Message(role="user", content=QUESTION)
    request = answers_pb2.AskRequest(messages=[message], max_tokens=2, **fields)
    return list(daemon.answers.Ask(request, timeout=60))[-1].done.prompt_tokens


def test_a_model_that_thinks_is_asked_as_it_was_trained(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    model = thinking_model(tmp_path / "model")
    tokenizer = load_tokenizer(model, eos_token_ids=[2])
    tokens = {
        thinking: len(encode_prompt(tokenizer, [{"role": "user", "content": QUESTION}], thinking))
        for thinking in ("given", "drop")
    }
    assert tokens["given"] < tokens["drop"]
    files = map(str, make_chat_data(tmp_path / "data", train=8, valid=2))
    settings = {"num_epochs": 1, "lora_layers": 1, "max_seq_length": 64, "thinking": "drop"}
    job = daemon.submit(JobSpec(str(model), *files, str(tmp_path / "out"), settings=settings)).job
    assert daemon.wait_for_state(job.id) is JobState.SUCCEEDED
    assert prompt_tokens(daemon, job_id=job.id) == tokens["drop"]
    assert prompt_tokens(daemon, job_id=job.id, base=True) == tokens["drop"]
    assert prompt_tokens(daemon, model=str(model)) == tokens["given"]
    exports = exports_pb2_grpc.ExportsStub(daemon.channel)
    request = exports_pb2.ExportRequest(
        job_id=job.id, output=str(tmp_path / "model-out"), wait=True
    )
    assert list(exports.Run(request, timeout=120))[-1].HasField("exported")
    modelfile = (tmp_path / "model-out" / "Modelfile").read_text()
    assert "assistant\n<think>\n\n</think>\n\n{{ .Response }}" in modelfile

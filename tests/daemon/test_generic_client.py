"""A client that has the .proto files and none of our code does the whole job."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from safetrain_shared.paths import Home
from tests.harness import DaemonProcess
from tests.tiny import make_chat_data, make_tiny_model

PROTO = Path(__file__).resolve().parents[2] / "proto"


class GenericClient:
    """Calls by name, over messages made from the .proto files in a pool of its own."""

    def __init__(self, folder: Path, socket: Path) -> None:
        compiled = folder / "protos.bin"
        sources = sorted(str(file) for file in PROTO.rglob("*.proto"))
        flags = [f"-I{PROTO}", "--include_imports", f"--descriptor_set_out={compiled}"]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *flags, *sources], check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes())
        self._pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            self._pool.Add(file)
        self._channel = grpc.insecure_channel(f"unix:{socket}")

    def __call__(self, service: str, method: str, **fields: Any) -> Any:
        name = f"safetrain.v1.{service}"
        found = self._pool.FindServiceByName(name).FindMethodByName(method)
        make = self._channel.unary_stream if found.server_streaming else self._channel.unary_unary
        request = message_factory.GetMessageClass(found.input_type)(**fields)
        call = make(
            f"/{name}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(found.output_type).FromString,
        )
        return call(request, timeout=120)


def test_a_client_of_the_proto_files_alone_does_the_whole_job(
    home: Path, daemon: DaemonProcess, tmp_path: Path
) -> None:
    train, valid = make_chat_data(tmp_path / "data")
    model = make_tiny_model(tmp_path / "model", layers=2)
    client = GenericClient(tmp_path, Home(home).socket)
    spec = {
        "model": str(model),
        "train": str(train),
        "valid": str(valid),
        "output": str(tmp_path / "out"),
        "settings": {"num_epochs": 1, "learning_rate": 1e-3},
    }
    *_, last = client("Preflight", "Run", spec=spec)
    assert last.WhichOneof("body") == "summary" and not last.summary.blocked
    job = client("Jobs", "Submit", spec=spec, idempotency_key="once").job
    batches = client("Events", "Watch", job_id=job.id, follow=True)
    watermark = [event.seq for batch in batches for event in batch.events]
    assert watermark == list(range(1, len(watermark) + 1))
    assert client("Jobs", "Get", id=job.id).state == 6  # JOB_STATE_SUCCEEDED
    question = {"role": "user", "content": "Olá?"}
    *_, done = client("Answers", "Ask", messages=[question], max_tokens=4)
    assert done.WhichOneof("body") == "done"

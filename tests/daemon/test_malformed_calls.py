"""Calls that no client of ours makes: each is answered with a status that says what is wrong."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from safetrain_proto.v1 import jobs_pb2
from safetrain_shared.jobs import FINAL, JobState
from safetrain_shared.wire import STATUS_DETAILS, error_from_wire, state_from_wire
from safetraind.app import _FILES
from tests.daemon.conftest import MakeSpec
from tests.daemon.test_accidents import read_result, result_of
from tests.harness import DaemonProcess

CALLS = int(os.environ.get("SAFETRAIN_FUZZED_CALLS", "400"))
SEED = int(os.environ.get("SAFETRAIN_FUZZ_SEED", "11"))
_TEXTS = (
    "",
    "\0",
    "/",
    "a" * 5000,
    "/" + "b" * 300,
    "../..",
    "\x1b[31m",
    "olá",
    "1e999",
    "{}",
    "/x",
)
_NUMBERS = (0, 1, -1, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))
_FLOATS = (0.0, -1.0, float("inf"), float("nan"), 1e308)
_LEFT_OUT = {"Stop"}  # it would end the daemon, as it should
# What a worker answers takes seconds, whatever is asked: they are called a tenth as often.
_SLOW = {"Ask", "Examine", "Preview", "Suggest"}
# Workers of play know nothing of files or models.
_BY_A_WORKER = _SLOW | {"Validate", "Prepare", "Add"}
_WORKING_SERVICES = {"Exports", "Preflight"}
_UNDERSTOOD = {"OK", "CANCELLED", "DEADLINE_EXCEEDED"}
Known = Mapping[int, Sequence[Any]]  # by `FieldDescriptor.CPPTYPE_…`: values that mean something


def methods() -> dict[MethodDescriptor, float]:
    """Every call of every service of ours, and how often it is made."""
    services = [s for file in _FILES for s in file.DESCRIPTOR.services_by_name.values()]
    every = [m for service in services for m in service.methods if m.name not in _LEFT_OUT]
    return {method: 0.1 if method.name in _SLOW else 1.0 for method in every}


def methods_of_play() -> dict[MethodDescriptor, float]:
    """Those that no worker but a training's answers."""
    return {
        method: 1.0
        for method in methods()
        if method.name not in _BY_A_WORKER
        and method.containing_service.name not in _WORKING_SERVICES
    }


def value(rng: random.Random, field: FieldDescriptor, known: Known) -> Any:
    kind = field.cpp_type
    if field.type != field.TYPE_BYTES and kind in known and rng.random() < 0.7:
        return rng.choice(known[kind])
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return rng.choice(_TEXTS) if field.type == field.TYPE_STRING else rng.randbytes(9)
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return rng.choice(_FLOATS)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return rng.choice((0, 1, 99))
    return rng.choice(_NUMBERS)


def fill(rng: random.Random, message: Message, known: Known, depth: int = 0) -> None:
    """Sets about half of the fields to values at their limits, or to `known` ones."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.5 or depth > 3:
            continue
        options = field.message_type.GetOptions() if field.message_type else None
        if options is not None and options.map_entry:
            continue
        repeated = field.is_repeated
        if field.message_type is not None:
            held = getattr(message, field.name)
            fill(rng, held.add() if repeated else held, known, depth + 1)
            continue
        try:
            if repeated:
                getattr(message, field.name).extend([value(rng, field, known) for _ in range(2)])
            else:
                setattr(message, field.name, value(rng, field, known))
        except ValueError:
            pass  # it does not fit a field of 32 bits


def requests(
    often: Mapping[MethodDescriptor, float], known: Known
) -> Iterator[tuple[MethodDescriptor, bytes]]:
    """Filled messages, some with bytes of theirs replaced: bad UTF-8 and bad lengths too."""
    rng = random.Random(SEED)
    for method in rng.choices([*often], [*often.values()], k=CALLS):
        message = GetMessageClass(method.input_type)()
        fill(rng, message, known)
        data = bytearray(message.SerializeToString())
        for _ in range(rng.choice((0, 0, 1, 3)) if data else 0):
            data[rng.randrange(len(data))] = rng.choice((0xFF, 0x80, 0x00, 0x7F))
        yield method, bytes(data)


def answer(daemon: DaemonProcess, method: MethodDescriptor, data: bytes) -> grpc.RpcError | None:
    """The error that a call ended with; None where it was answered."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    try:
        if method.server_streaming:
            for _ in daemon.channel.unary_stream(path)(data, timeout=0.5):
                break
        else:
            daemon.channel.unary_unary(path)(data, timeout=10)
    except grpc.RpcError as error:
        return error
    return None


def call_all(daemon: DaemonProcess, often: Mapping[MethodDescriptor, float], known: Known) -> None:
    """Makes the calls. Each is answered, or refused with details that say what is wrong."""
    found: Counter[str] = Counter()
    for method, data in requests(often, known):
        error = answer(daemon, method, data)
        code = error.code().name if error is not None else "OK"  # type: ignore[attr-defined]
        found[code] += 1
        if error is None or code in _UNDERSTOOD:
            continue
        told = (method.full_name, data[:200], error)
        assert code != "UNKNOWN", told
        trailers = dict(error.trailing_metadata())  # type: ignore[attr-defined]
        assert STATUS_DETAILS in trailers, told
        details = error_from_wire(trailers[STATUS_DETAILS])
        assert details.code != "daemon.broken", (told, details.args_by_name)
    print(f"\n{found.total()} calls: {dict(found)}")
    log = daemon.home.log.read_text()
    assert "Traceback" not in log
    assert "\x1b" not in log
    assert daemon.info().pid


@pytest.mark.timeout(3600 if CALLS > 1000 else 120)
def test_a_malformed_call_is_answered_with_details_and_without_a_traceback(
    daemon: DaemonProcess,
) -> None:
    call_all(daemon, methods(), {})


@pytest.mark.timeout(3600 if CALLS > 1000 else 120)
def test_calls_about_real_jobs_and_files_leave_no_job_stuck_and_a_home_that_works(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    playing.start()
    specs = [make_spec(f"out{n}", name=f"hold={n}", num_epochs=1) for n in (0, 5, 5)]
    jobs = [playing.submit(spec).job.id for spec in specs]
    playing.wait_for_state(jobs[0])
    texts = [spec.output for spec in specs] + [str(tmp_path / "new"), "pace=0", "hold=3"]
    texts += [specs[0].model, specs[0].train, specs[0].valid]
    call_all(
        playing,
        methods_of_play(),
        {
            FieldDescriptor.CPPTYPE_STRING: texts,
            FieldDescriptor.CPPTYPE_INT64: (1, 2, 3, 4, 5, 8),
            FieldDescriptor.CPPTYPE_DOUBLE: (1e-4, 0.5),
        },
    )
    for job in playing.jobs.List(jobs_pb2.ListJobsRequest()).jobs:
        if state_from_wire(job.state) not in FINAL:
            playing.jobs.Cancel(jobs_pb2.JobRequest(id=job.id))
            playing.wait_for_state(job.id)
    last = playing.submit(make_spec("last", name="pace=0", num_epochs=1)).job.id
    playing.wait_for_state(last, JobState.SUCCEEDED)
    assert read_result(tmp_path / "last") == result_of(10)
    assert playing.terminate() == 0


def test_a_text_that_is_no_utf8_is_named(daemon: DaemonProcess) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        daemon.channel.unary_unary("/safetrain.v1.Jobs/Submit")(b"\x12\x02\xff\xfe", timeout=10)
    error = error_from_wire(dict(caught.value.trailing_metadata())[STATUS_DETAILS])  # type: ignore[attr-defined]
    assert error.code == "request.malformed"
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]

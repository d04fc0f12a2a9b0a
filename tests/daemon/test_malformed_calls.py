"""Calls that no client of ours makes: each is answered with a status that says what is wrong."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from safetrain_shared.wire import STATUS_DETAILS, error_from_wire
from safetraind.app import _FILES
from tests.harness import DaemonProcess

CALLS = int(os.environ.get("SAFETRAIN_FUZZED_CALLS", "400"))
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
_UNDERSTOOD = {"OK", "CANCELLED", "DEADLINE_EXCEEDED"}


def methods() -> list[MethodDescriptor]:
    """Every call of every service of ours."""
    services = [s for file in _FILES for s in file.DESCRIPTOR.services_by_name.values()]
    return [m for service in services for m in service.methods if m.name not in _LEFT_OUT]


def value(rng: random.Random, field: FieldDescriptor) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return rng.choice(_TEXTS) if field.type == field.TYPE_STRING else rng.randbytes(9)
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return rng.choice(_FLOATS)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return rng.choice((0, 1, 99))
    return rng.choice(_NUMBERS)


def fill(rng: random.Random, message: Message, depth: int = 0) -> None:
    """Sets about half of the fields to values at their limits."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.5 or depth > 3:
            continue
        options = field.message_type.GetOptions() if field.message_type else None
        if options is not None and options.map_entry:
            continue
        repeated = field.is_repeated
        if field.message_type is not None:
            held = getattr(message, field.name)
            fill(rng, held.add() if repeated else held, depth + 1)
            continue
        try:
            if repeated:
                getattr(message, field.name).extend([value(rng, field), value(rng, field)])
            else:
                setattr(message, field.name, value(rng, field))
        except ValueError:
            pass  # it does not fit a field of 32 bits


def requests(seed: int) -> Iterator[tuple[MethodDescriptor, bytes]]:
    """Filled messages, some with bytes of theirs replaced: bad UTF-8 and bad lengths too."""
    rng, known = random.Random(seed), methods()
    for _ in range(CALLS):
        method = rng.choice(known)
        message = GetMessageClass(method.input_type)()
        fill(rng, message)
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


@pytest.mark.timeout(3600 if CALLS > 1000 else 120)
def test_a_malformed_call_is_answered_with_details_and_without_a_traceback(
    daemon: DaemonProcess,
) -> None:
    for method, data in requests(seed=11):
        error = answer(daemon, method, data)
        if error is None or error.code().name in _UNDERSTOOD:  # type: ignore[attr-defined]
            continue
        told = (method.full_name, data[:200], error)
        assert error.code() is not grpc.StatusCode.UNKNOWN, told  # type: ignore[attr-defined]
        trailers = dict(error.trailing_metadata())  # type: ignore[attr-defined]
        assert STATUS_DETAILS in trailers, told
        found = error_from_wire(trailers[STATUS_DETAILS])
        assert found.code != "daemon.broken", (told, found.args_by_name)
    assert "Traceback" not in daemon.home.log.read_text()
    assert daemon.info().pid


def test_a_text_that_is_no_utf8_is_named(daemon: DaemonProcess) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        daemon.channel.unary_unary("/safetrain.v1.Jobs/Submit")(b"\x12\x02\xff\xfe", timeout=10)
    error = error_from_wire(dict(caught.value.trailing_metadata())[STATUS_DETAILS])  # type: ignore[attr-defined]
    assert error.code == "request.malformed"
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]

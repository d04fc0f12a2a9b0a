"""A call that a daemon of another version does not take gets a sentence with the cure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from safetrain.connection import Daemon
from safetrain_proto.v1 import control_pb2, control_pb2_grpc, evaluations_pb2, exports_pb2
from safetrain_shared.errors import Incompatible
from safetrain_shared.known_methods import known_methods
from safetrain_shared.paths import Home, private


class Control(control_pb2_grpc.ControlServicer):
    """The only service of a daemon of another version."""

    methods: tuple[str, ...] = ()

    def Info(self, request: Any, context: Any) -> control_pb2.InfoResponse:  # noqa: N802
        return control_pb2.InfoResponse(version="7.0", methods=self.methods)


@pytest.fixture
def control(home: Home) -> Iterator[Control]:
    """A daemon that takes nothing but `Info`."""
    private(home.root)
    servicer = Control()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    control_pb2_grpc.add_ControlServicer_to_server(servicer, server)
    before = os.umask(0o177)
    server.add_insecure_port(f"unix:{home.socket}")
    os.umask(before)
    server.start()
    yield servicer
    server.stop(None).wait()


def refused(home: Home) -> Incompatible:
    with Daemon(home, autostart=False) as daemon, pytest.raises(Incompatible) as caught:
        list(daemon.stream(daemon.exports.Run, exports_pb2.ExportRequest()))
    return caught.value


def test_a_call_that_an_older_daemon_lacks_asks_for_a_restart(home: Home, control: Control) -> None:
    error = refused(home)
    assert error.code == "daemon.incompatible"
    assert "Exports/Run" in str(error) and "safetraind restart" in str(error)


def test_a_call_that_a_newer_daemon_no_longer_takes_asks_for_an_upgrade(
    home: Home, control: Control
) -> None:
    control.methods = ("safetrain.v1.Control/Info", "safetrain.v1.Exports/RunAnew")
    error = refused(home)
    assert error.code == "client.outdated"
    assert "Exports/Run" in str(error) and "7.0" in str(error) and "Upgrade" in str(error)


def test_the_client_knows_the_calls_of_every_service() -> None:
    services = {method.partition("/")[0] for method in known_methods()}
    assert evaluations_pb2.DESCRIPTOR.services_by_name["Evaluations"].full_name in services
    assert "safetrain.v1.Jobs/Submit" in known_methods()

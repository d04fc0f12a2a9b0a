"""A host without safetrain, or with another version, gets one sentence with the command to run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent import futures
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest

from safetrain import cli
from safetrain_proto.v1 import control_pb2, control_pb2_grpc
from safetrain_shared.known_methods import known_methods
from safetrain_shared.remote import host_list
from safetrain_shared.remote.host_list import Host
from safetrain_shared.remote.installing import install_command
from tests.remote.studio import Studio

_OWN = version("safetrain")
_FILES = "safetrain.v1.Files/"


class Other(control_pb2_grpc.ControlServicer):
    """The daemon of another version: it takes `Info`, and says what else it would take."""

    methods: tuple[str, ...] = ()

    def Info(self, request: Any, context: Any) -> control_pb2.InfoResponse:  # noqa: N802
        return control_pb2.InfoResponse(version="0.9", methods=self.methods)


@pytest.fixture
def other(studio: Studio, tmp_path: Path) -> Iterator[Other]:
    """A host `other` of the real sshd, with a scripted daemon behind it."""
    servicer, socket = Other(), tmp_path / "other.sock"
    server = grpc.server(futures.ThreadPoolExecutor(2))
    control_pb2_grpc.add_ControlServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    answer = json.dumps({"socket": str(socket), "version": "0.9", "folder": str(tmp_path)})
    _host(tmp_path, f"echo '{answer}'")
    yield servicer
    server.stop(None).wait()


def _host(folder: Path, script: str) -> None:
    """Keeps a host `other` whose safetraind is a shell script."""
    program = folder / "bin" / "safetraind"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    host_list.add(Host("other", "studio", str(program)))


def _refused(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = cli.main([*words])
    said = capsys.readouterr().err.strip().splitlines()
    return code, said[-1]


def test_an_older_daemon_is_named_with_the_command_that_upgrades_it(
    other: Other, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other.methods = tuple(name for name in known_methods() if not name.startswith(_FILES))
    upgrade = f"{tmp_path}/bin/python -m pip install 'safetrain[daemon]=={_OWN}'"
    for words in (("hosts", "check", "other"), ("fetch", "1", "--host", "other")):
        code, said = _refused(capsys, *words)
        assert code == 76 and "other (0.9) is older" in said and "Files/" in said
        assert f'ssh studio "{upgrade} && {tmp_path}/bin/safetraind restart"' in said


def test_a_daemon_of_another_number_that_takes_every_call_is_as_good(
    other: Other, capsys: pytest.CaptureFixture[str]
) -> None:
    other.methods = tuple(known_methods())
    assert cli.main(["hosts", "check", "other"]) == 0
    assert "0.9" in capsys.readouterr().out


def test_a_newer_daemon_asks_for_an_upgrade_here(
    other: Other, capsys: pytest.CaptureFixture[str]
) -> None:
    other.methods = ("safetrain.v1.Control/Info", "safetrain.v1.Files/ListAnew")
    code, said = _refused(capsys, "fetch", "1", "--host", "other")
    assert code == 76 and "is newer" in said and "pipx upgrade safetrain" in said


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("echo 'No such command' >&2; exit 2", 76, "is older"),
        ("echo \"python3: No module named 'safetraind'\" >&2; exit 1", 69, "no safetraind on"),
        ("echo hello", 69, "cannot be understood"),
    ],
)
def test_what_cannot_say_where_it_listens_gets_the_command(
    studio: Studio,
    tmp_path: Path,
    script: str,
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _host(tmp_path, script)
    found, said = _refused(capsys, "jobs", "--host", "other")
    assert found == code and words in said
    assert f"pip install 'safetrain[daemon]=={_OWN}'" in said


def test_the_command_fits_how_safetrain_is_started_there() -> None:
    by_path = install_command(Host("mini", "ana@mini", "~/safetrain/.venv/bin/safetraind"))
    assert by_path.startswith('ssh ana@mini "~/safetrain/.venv/bin/python -m pip install ')
    assert by_path.endswith(' && ~/safetrain/.venv/bin/safetraind restart"')
    by_name = install_command(Host("mini", "ana@mini"))
    assert by_name.startswith('ssh ana@mini "pipx install --force ')
    by_module = install_command(
        Host("mini", "mini", f"env A=1 {os.sep}v/bin/python3 -m safetraind")
    )
    assert '"/v/bin/python -m pip install' in by_module

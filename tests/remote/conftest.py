"""Another machine: a real sshd on loopback, with a home of its own behind it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from safetrain.remote import host_list
from safetrain.remote.host_list import Host
from safetrain.remote.tunnel import Tunnel
from tests.harness import DaemonProcess, kill_all, wait_for

_SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@dataclass
class Studio:
    """The other machine. `name`: what ssh and `--host` call it."""

    name: str
    home: Path
    server: subprocess.Popen[bytes]
    settings: Path  # of ssh

    def daemon(self) -> DaemonProcess:
        """The daemon's harness there, to look at its processes and to end them."""
        return DaemonProcess(self.home)

    def cut(self) -> bool:
        """Kill what serves the connections, as a link that breaks; return whether there was one."""
        serving = psutil.Process(self.server.pid).children()
        kill_all(serving)
        return bool(serving)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A machine named `studio`, known to ssh and in the list of hosts."""
    if _SSHD is None:
        pytest.skip("no sshd here; scripts/sshd.sh installs it where that needs no password")
    folder = tmp_path_factory.mktemp("studio")
    with pytest.MonkeyPatch.context() as patch:
        server, settings = _serve(folder)
        try:
            patch.setenv("PATH", f"{_ssh_with(settings)}:{os.environ['PATH']}")
            patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
            command = ("env", f"SAFETRAIN_HOME={folder}/home", "SAFETRAIN_LANG=en")
            command += (
                f"HOME={folder}",
                "MLX_DISABLE_COMPILE=1",
                sys.executable,
                "-m",
                "safetraind",
            )
            host_list.add(Host("studio", "studio", " ".join(command)))
            studio = Studio("studio", folder / "home", server, settings)
            yield studio
            studio.daemon().end()
            shutil.rmtree(Tunnel(host_list.find("studio"), print).home.root)
        finally:
            server.kill()
            server.wait()


def _serve(folder: Path) -> tuple[subprocess.Popen[bytes], Path]:
    for name in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    (folder / "authorized").write_bytes((folder / "user_key.pub").read_bytes())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host_key\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    settings = folder / "ssh_config"
    settings.write_text(
        f"Host studio\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {folder}/user_key\n"
        "  IdentitiesOnly yes\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n"
        "  LogLevel ERROR\n"
    )
    assert _SSHD is not None
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd of root gives up its rights
    with (folder / "sshd.log").open("wb") as log:
        server = subprocess.Popen([_SSHD, "-D", "-e", "-f", str(folder / "sshd")], stderr=log)
    wait_for(lambda: _answers(port), 20, "sshd answers")
    return server, settings


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _ssh_with(settings: Path) -> Path:
    """A folder with an `ssh` that reads these settings, in place of the user's."""
    folder = settings.parent / "bin"
    folder.mkdir()
    real = shutil.which("ssh")
    (folder / "ssh").write_text(f'#!/bin/sh\nexec {real} -F {settings} "$@"\n')
    (folder / "ssh").chmod(0o755)
    return folder

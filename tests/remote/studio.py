"""Another machine: a real sshd, with a home of its own behind it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from safetrain_shared.remote import host_list
from safetrain_shared.remote.host_list import Host
from safetrain_shared.remote.tunnel import Tunnel
from tests.harness import SAFETRAIND, DaemonProcess, kill_all, wait_for
from tests.remote.link import Link, linked

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@dataclass
class Studio:
    """The other machine. `name`: what ssh and `--host` call it; `link`, `port`: where its sshd
    listens.
    """

    name: str
    home: Path
    server: subprocess.Popen[bytes]
    settings: Path  # of ssh
    link: Link
    port: int

    def daemon(
        self,
        home: Path | None = None,
        command: Sequence[str] = SAFETRAIND,
        env: dict[str, str] | None = None,
    ) -> DaemonProcess:
        """A daemon's harness there, to start it, to look at its processes and to end them."""
        return DaemonProcess(home or self.home, (*self.link.enter, *command), env)

    def cut(self) -> bool:
        """Kill what serves the connections, as a link that breaks; return whether there was one."""
        serving = psutil.Process(self.server.pid).children()
        kill_all(serving)
        return bool(serving)

    def add(self, name: str, *, port: int = 0, user: str = "") -> None:
        """Let ssh know it by another name too, at another port or for another user."""
        with self.settings.open("a") as settings:
            settings.write(_entry(name, self.link, port or self.port, self.settings.parent, user))


@contextmanager
def running(folder: Path) -> Iterator[Studio]:
    """A machine named `studio` with its files in `folder`, known to ssh and in the list of hosts.

    Its sshd, its daemon and the connections to it end with the block.
    """
    if SSHD is None:
        pytest.skip("no sshd here; scripts/sshd.sh installs it where that needs no password")
    with pytest.MonkeyPatch.context() as patch, linked() as link:
        port = _free_port()
        settings = _configured(folder, link, port)
        server = _serve(folder, link, port)
        try:
            patch.setenv("PATH", f"{_ssh_with(settings)}:{os.environ['PATH']}")
            patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
            host_list.add(Host("studio", "studio", command(folder)))
            studio = Studio("studio", folder / "home", server, settings, link, port)
            yield studio
            studio.daemon().end()
            for host in host_list.read().values():
                shutil.rmtree(Tunnel(host, print).home.root, ignore_errors=True)
        finally:
            kill_all(psutil.Process(server.pid).children(recursive=True))
            server.kill()
            server.wait()


def command(folder: Path) -> str:
    """What starts safetraind there, with its home in `folder`."""
    variables = f"SAFETRAIN_HOME={folder}/home SAFETRAIN_LANG=en HOME={folder}"
    return f"env {variables} MLX_DISABLE_COMPILE=1 {sys.executable} -m safetraind"


def _configured(folder: Path, link: Link, port: int) -> Path:
    """Makes keys and the settings of both sides, and returns those of ssh."""
    for name in ("host_key", "user_key"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(make, check=True)
    (folder / "authorized").write_bytes((folder / "user_key.pub").read_bytes())
    (folder / "sshd").write_text(
        f"ListenAddress {link.address}\nPort {port}\nHostKey {folder}/host_key\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    settings = folder / "ssh_config"
    settings.write_text(_entry("studio", link, port, folder))
    return settings


def _entry(name: str, link: Link, port: int, folder: Path, user: str = "") -> str:
    return (
        f"Host {name}\n  HostName {link.address}\n  Port {port}\n  IdentityFile {folder}/user_key\n"
        "  IdentitiesOnly yes\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n"
        "  LogLevel ERROR\n" + (f"  User {user}\n" if user else "")
    )


def _serve(folder: Path, link: Link, port: int) -> subprocess.Popen[bytes]:
    assert SSHD is not None
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd of root gives up its rights
    with (folder / "sshd.log").open("wb") as log:
        command = [*link.enter, SSHD, "-D", "-e", "-f", str(folder / "sshd")]
        server = subprocess.Popen(command, stderr=log)
    wait_for(lambda: _answers(link, port), 20, "sshd answers")
    return server


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _answers(link: Link, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((link.address, port)) == 0


def _ssh_with(settings: Path) -> Path:
    """A folder with an `ssh` that reads these settings, in place of the user's."""
    folder = settings.parent / "bin"
    folder.mkdir()
    real = shutil.which("ssh")
    (folder / "ssh").write_text(f'#!/bin/sh\nexec {real} -F {settings} "$@"\n')
    (folder / "ssh").chmod(0o755)
    return folder

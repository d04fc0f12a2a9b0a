"""Forwards the Unix socket of a daemon on another machine to this one, through the user's ssh.

The user's ssh does all of it, with their keys and configuration: one connection to a host is kept
open by ssh itself (ControlMaster, ControlPersist) and shared between commands. No TCP port is
opened on either side.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from safetrain_shared.daemon_socket import Notify, answers, wait
from safetrain_shared.errors import ERRORS, EXIT_USAGE, SafetrainError, Unreachable
from safetrain_shared.paths import Home, private, runtime_folder
from safetrain_shared.remote.host_list import Host

KEPT_SECONDS = 600  # an idle connection to a host stays open so long
CONNECT_SECONDS = 20
FORWARD_SECONDS = 3.0
GREETING_SECONDS = 10.0
_ATTEMPTS = 4
_MOST_CHARACTERS = 1 << 20  # of what a host may print
_LOOK_SECONDS = 0.2
_NOT_FOUND = 127  # a shell's exit code for a command that is not there
_SSH_FAILED = 255
_OPTIONS: Mapping[str, str] = {
    "ControlMaster": "auto",
    "ControlPersist": str(KEPT_SECONDS),
    "ConnectTimeout": str(CONNECT_SECONDS),
    # A link that is gone is noticed within half a minute.
    "ServerAliveInterval": "10",
    "ServerAliveCountMax": "3",
    "StreamLocalBindUnlink": "yes",
    "ExitOnForwardFailure": "yes",
}
_NO_MODULE = re.compile(r"No module named '?safetraind?\b")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True)
class Endpoint:
    """What a host said of its daemon."""

    socket: str
    version: str
    folder: str  # the user's home folder there


class Tunnel:
    """The way to the daemon of one host; `home.socket` is its end on this machine."""

    def __init__(self, host: Host, notify: Notify) -> None:
        self.host = host
        self._notify = notify
        digest = hashlib.sha256(f"{host.destination}\0{host.command}".encode()).hexdigest()[:16]
        self._folder = private(runtime_folder(), parents=True)
        self.control = self._folder / f"ssh-{digest}"
        self.home = Home(private(self._folder / digest))
        self._kept_folder = self.home.root / "folder"  # what `folder` returns, since it was opened

    def ensure(self, *, autostart: bool) -> None:
        """Return once the socket here is connected, opening the tunnel where it is not.

        ssh itself listens at the socket: it answers as long as the connection is held. Raises
        Unreachable where there is no way to the host or no daemon on it.
        """
        if not answers(self.home):
            from safetrain_shared.messages import sentence

            self._notify(sentence("host.connecting", {"host": self.host.name}))
            self.open(autostart=autostart)

    def open(self, *, autostart: bool) -> None:
        """Ask the host for its socket, starting a daemon there if need be, and forward it.

        Raises Unreachable, and the daemon's refusal.
        """
        with self._alone():
            if self._speaks():  # another thread or command was first
                return
            for _ in range(_ATTEMPTS):
                endpoint = self.endpoint(autostart=autostart)
                self._kept_folder.write_text(endpoint.folder, encoding="utf-8")
                done = self._forward(endpoint)
                if done.returncode == 0 and wait(self.home, FORWARD_SECONDS) and self._speaks():
                    return
                # A connection that is just being lost took it: the next attempt makes a new one.
                self._ssh("-O", "exit", self.host.destination)
            raise self._unreachable(done.stderr)

    def folder(self, *, autostart: bool) -> str:
        """Return the user's home folder on the host. Raises what `endpoint` raises.

        As told when the tunnel was opened: to ask again takes a Python's start there.
        """
        with contextlib.suppress(OSError, UnicodeError):
            return self._kept_folder.read_text(encoding="utf-8")
        return self.endpoint(autostart=autostart).folder

    def _speaks(self) -> bool:
        """Whether a daemon is at the other end, which ssh's own end here does not tell.

        gRPC greets whoever connects.
        """
        try:
            if not answers(self.home):
                return False
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(GREETING_SECONDS)
                probe.connect(os.fspath(self.home.socket))
                return bool(probe.recv(1))
        except OSError:
            return False

    def _forward(self, endpoint: Endpoint) -> subprocess.CompletedProcess[str]:
        with contextlib.suppress(FileNotFoundError):
            self.home.socket.unlink()
        forward = f"{self.home.socket}:{endpoint.socket}"
        return self._ssh("-O", "forward", "-L", forward, self.host.destination)

    def endpoint(self, *, autostart: bool) -> Endpoint:
        """Return where the host's daemon listens. Raises Unreachable, and the daemon's refusal."""
        words = [*shlex.split(self.host.command), "endpoint", "--json"]
        words += [] if autostart else ["--no-start"]
        # ssh hands the words to a shell there.
        done = self._ssh(self.host.destination, "--", " ".join(map(quoted, words)))
        if done.returncode == 0:
            return self._understood(done.stdout)
        missing = _NO_MODULE.search(done.stderr)
        if done.returncode == _NOT_FOUND or missing:
            raise self._not_installed("safetraind" if missing else words[0], anew=not missing)
        if done.returncode == EXIT_USAGE:  # it does not know `endpoint`
            raise self._older()
        if done.returncode == _SSH_FAILED:
            raise self._unreachable(done.stderr)
        raise self._refused(done)

    def _not_installed(self, program: str, *, anew: bool) -> Unreachable:
        from safetrain_shared.remote.installing import install_command

        command = install_command(self.host, anew=anew)
        return Unreachable(
            "host.not_installed", host=self.host.name, program=program, command=command
        )

    def _older(self) -> SafetrainError:
        from safetrain_proto.v1.control_pb2 import InfoResponse
        from safetrain_shared.remote.installing import not_taken

        return not_taken(self.host, "safetraind endpoint", InfoResponse())

    def _not_understood(self) -> Unreachable:
        from safetrain_shared.remote.installing import install_command

        command = install_command(self.host)
        return Unreachable("host.not_understood", host=self.host.name, command=command)

    def _understood(self, text: str) -> Endpoint:
        """Return the endpoint in the last line printed. A host's answer is as untrusted as a file.

        A login shell there may print a greeting before it.
        """
        try:
            found: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
            endpoint = Endpoint(*(str(found[key]) for key in ("socket", "version", "folder")))
        except (ValueError, IndexError, KeyError, TypeError):
            raise self._not_understood() from None
        for path in (endpoint.socket, endpoint.folder):
            # A colon would end the path in ssh's -L.
            if not path.startswith("/") or ":" in path or not path.isprintable():
                raise self._not_understood()
        return endpoint

    def _refused(self, done: subprocess.CompletedProcess[str]) -> SafetrainError:
        try:
            said = json.loads(done.stderr.strip().splitlines()[-1])["error"]["text"]
        except (ValueError, IndexError, KeyError, TypeError):
            said = _last_line(done.stderr)
        cls = {error.exit_code: error for error in ERRORS}.get(done.returncode, Unreachable)
        return cls("host.refused", host=self.host.name, sentence=_CONTROL.sub(" ", str(said)))

    def _unreachable(self, errors: str) -> Unreachable:
        return Unreachable("host.unreachable", host=self.host.name, reason=_last_line(errors))

    def _ssh(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ssh, which may ask for a passphrase where there is a terminal."""
        from tempfile import TemporaryFile  # not for a command that finds its tunnel open

        # Files, not pipes: the ssh that stays behind to hold the connection keeps them open.
        with (
            TemporaryFile("w+", errors="replace") as out,
            TemporaryFile("w+", errors="replace") as err,
        ):
            try:
                process = subprocess.Popen(
                    ["ssh", *self._options(), *words],
                    stdin=None if _has_terminal() else subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                )
            except FileNotFoundError:
                raise Unreachable("host.no_ssh") from None
            self._wait(process, out, err)
            for file in (out, err):
                file.seek(0)
            said, errors = out.read(_MOST_CHARACTERS), err.read(_MOST_CHARACTERS)
            return subprocess.CompletedProcess(words, process.returncode, said, errors)

    def _wait(self, process: subprocess.Popen[bytes], *outputs: IO[str]) -> None:
        """Wait for ssh. Raises Unreachable, and ends it, where the host talks without end."""
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_LOOK_SECONDS)
                if any(os.fstat(file.fileno()).st_size > _MOST_CHARACTERS for file in outputs):
                    raise self._not_understood()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _options(self) -> Sequence[str]:
        batch = "no" if _has_terminal() else "yes"
        options = {**_OPTIONS, "ControlPath": str(self.control), "BatchMode": batch}
        return [word for key, value in options.items() for word in ("-o", f"{key}={value}")] + [
            "-T"
        ]

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep two commands from opening the same tunnel at once."""
        lock = os.open(self.home.root / "tunnel.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def quoted(word: str) -> str:
    """Quote a word for a shell, but leave a path's `~` to it."""
    return word if re.fullmatch(r"~?[\w@%+=:,./-]+", word, re.ASCII) else shlex.quote(word)


def _has_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _last_line(text: str) -> str:
    lines = [line for line in _CONTROL.sub("\n", text).splitlines() if line.strip()]
    return lines[-1].strip() if lines else "ssh"

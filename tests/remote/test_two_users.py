"""Two users of one machine: what one has sent and trains is out of the other's reach."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetrain.connection import Daemon
from safetrain.remote.upload import send
from safetrain_shared.errors import Unreachable
from safetrain_shared.remote import host_list
from safetrain_shared.remote.host_list import Host
from safetrain_shared.remote.tunnel import Tunnel
from tests.remote.studio import Studio, running

_USERADD = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@pytest.fixture
def guest() -> Iterator[str]:
    """Another user of this machine, who may log in with the same key."""
    if os.geteuid() != 0 or _USERADD is None:
        pytest.skip("only root can make a second user")
    name = f"safetrain{os.getpid()}"
    # No password, but not locked: sshd lets nobody in to a locked account.
    subprocess.run([_USERADD, "--no-create-home", "--password", "*", name], check=True)
    yield name
    remove = Path(_USERADD).with_name("userdel")
    subprocess.run([str(remove), "--force", name], check=True, capture_output=True)


@pytest.fixture
def shared(guest: str) -> Iterator[Studio]:
    """A studio in a folder that everybody may enter, which is `guest` to ssh for the other user."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        with running(Path(name)) as studio:
            studio.add("guest", user=guest)
            yield studio


def _as_guest(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ssh", "guest", *words], capture_output=True, text=True, check=False)


def test_another_user_reads_no_upload_and_reaches_no_daemon(shared: Studio, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text('{"text": "segredo"}\n')
    with Daemon(host="studio") as daemon:
        sent = send(daemon, str(file))
        assert _as_guest("echo", "olá").stdout == "olá\n"
        for path in (sent, str(shared.home / "daemon.log"), str(daemon.home.socket)):
            refused = _as_guest("cat", path)
            assert refused.returncode and "Permission denied" in refused.stderr, path

    # A client of the other user that names the first one's socket, whatever safetraind would say.
    answer = {"socket": str(shared.home / "daemon.sock"), "version": "1", "folder": "/"}
    host = Host("guest", "guest", f"echo '{json.dumps(answer)}'")
    host_list.add(host)
    with pytest.raises(Unreachable):
        Daemon(host="guest")
    assert not Tunnel(host, print)._speaks()

"""What a command may load: a prompt that answers at once is worth a test."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.client.builders import job
from tests.client.fake import FakeDaemon

_JSON = "google.protobuf.json_format"
HEAVY = ("grpc", "google.protobuf", _JSON, "numpy", "mlx", "rich", "asyncio", "yaml")


def _loaded(code: str) -> set[str]:
    """The modules of `HEAVY` that are loaded after `code`, in a fresh Python without a terminal."""
    code += f"\nimport sys; print('loaded', *[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_the_command_line_itself_loads_nothing_heavy() -> None:
    assert _loaded("import safetrain.cli") == set()


def test_help_loads_nothing_heavy() -> None:
    assert _loaded("from safetrain.cli import main; main(['--help'])") == set()


def test_import_safetrain_is_light() -> None:
    assert _loaded("import safetrain") == set()


@pytest.mark.parametrize("command", ["status", "jobs"])
def test_status_and_jobs_load_only_what_they_need(command: str, daemon: FakeDaemon) -> None:
    daemon.jobs = [job(1)]
    loaded = _loaded(f"from safetrain.cli import main; assert main([{command!r}]) == 0")
    assert "grpc" in loaded and not loaded & {"rich", "numpy", "mlx", "yaml", _JSON}


def test_watch_without_a_terminal_loads_no_rich(daemon: FakeDaemon) -> None:
    daemon.jobs = [job(1)]
    daemon.ended.set()
    daemon.jobs[0].state = 6
    loaded = _loaded("from safetrain.cli import main; main(['watch', '1'])")
    assert "grpc" in loaded and not loaded & {"rich", _JSON}

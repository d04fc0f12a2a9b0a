"""The commands in the documents do what they say: run as they stand, in order, by a shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetraind.storage.manifest import write_manifest
from tests.docs.pages import COUNTERPARTS, ROOT, scripts
from tests.harness import DaemonProcess
from tests.tiny import make_tiny_model

RUN = [page for page in COUNTERPARTS if scripts(page)]
LINES = 24  # of each sample file: the trainings are real, and short


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[DaemonProcess]:
    """A home whose model `demo` is a tiny one, so that the commands need no network."""
    process = DaemonProcess(tmp_path / "home")
    demo = make_tiny_model(process.home.models / "demo", layers=2)
    (demo / "LICENSE").write_text("Apache License\n")
    write_manifest(demo, {"name": "demo"})
    try:
        yield process.start()
    finally:
        process.end()


@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=[] if p == "README.md" else pytest.mark.slow) for p in RUN]
)
def test_the_commands_of_the_page_run_as_they_stand(
    page: str, machine: DaemonProcess, tmp_path: Path
) -> None:
    """In a folder with the repository's data, shortened."""
    here = tmp_path / "here"
    shutil.copytree(ROOT / "data", here / "data")
    for file in (here / "data").glob("*.jsonl"):
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:LINES]))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(scripts(page))],
        cwd=here,
        env=_environment(machine),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{machine.said()}"


def _environment(machine: DaemonProcess) -> dict[str, str]:
    scripts = str(Path(sys.executable).parent)
    return {**machine.environment(), "PATH": f"{scripts}:{os.environ['PATH']}"}

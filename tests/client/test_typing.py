"""A user's program is checked by mypy as our own code is: the packages carry their types."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """\
import safetrain

sheet = safetrain.preflight(model="demo", wait=True)
job = safetrain.submit(model="demo", settings=sheet.settings, memory_budget="6GB", fresh=True)
losses: list[float] = [step.loss for step in job.steps()]
speed: float = safetrain.ask("Qual?", job=job.id, temperature=0.5).tokens_per_second
try:
    job.pause()
except safetrain.AlreadyFinished as error:
    code: str = error.code


async def the_same() -> None:
    async with safetrain.AsyncClient(lang="pt") as client:
        job = await client.submit(model="demo", after=3)
        async for step in job.steps():
            losses.append(step.loss)
"""
WRONG = """\
import safetrain

safetrain.submit(modle="demo")
safetrain.preflight(model=3)
safetrain.ask("Qual?", seed="seven")
safetrain.teach()
"""


def _checked(folder: Path, program: str) -> str:
    (folder / "program.py").write_text(program)
    command = [sys.executable, "-m", "mypy", "--strict", "program.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout


def test_a_program_that_is_right_passes_and_what_is_wrong_is_found(tmp_path: Path) -> None:
    assert _checked(tmp_path, PROGRAM).startswith("Success")
    told = _checked(tmp_path, WRONG)
    for line, kind in [(3, "call-arg"), (4, "arg-type"), (5, "arg-type"), (6, "attr-defined")]:
        assert any(
            row.startswith(f"program.py:{line}: error:") and row.endswith(f"[{kind}]")
            for row in told.splitlines()
        ), told

"""The workflows of continuous integration: what they run is in the repository."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.darwin_wheels import pythons

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_what_a_workflow_runs_is_there(file: Path) -> None:
    """Targets of the Makefile and modules that are run; actionlint looks at the rest."""
    steps = [step for job in _jobs(file).values() for step in job.get("steps", [])]
    script = "\n".join(step.get("run", "") for step in steps)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"\bmake ([\w-]+)", script))
    modules = set(re.findall(r"\.venv/bin/python -m ([\w.]+)", script))
    assert targets
    assert not [name for name in targets if not re.search(f"^{name}:", makefile, re.MULTILINE)]
    assert not [name for name in modules if find_spec(name) is None]


def test_every_supported_python_is_tested() -> None:
    linux = _jobs(ROOT / ".github/workflows/tests.yml")["linux"]
    assert linux["strategy"]["matrix"]["python"] == pythons()
    assert pythons()[0] == "3.11"


def _jobs(file: Path) -> dict[str, Any]:
    jobs: dict[str, Any] = yaml.safe_load(file.read_text("utf-8"))["jobs"]
    return jobs

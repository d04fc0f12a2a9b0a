"""The built wheel in clean environments: a light client, and with the extra the whole service."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WHEELHOUSE = ROOT / ".venv" / "wheelhouse"  # filled by `make test` before the tests run

pytestmark = pytest.mark.timeout(300)


def run(
    *command: str | Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "SAFETRAIN"))}
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd="/",
        env={**clean, **(env or {})},
        timeout=240,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    built = run(*command)
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))


def installed(folder: Path, requirement: str) -> Path:
    """A clean environment with `requirement`, from the wheelhouse alone; its `bin` folder."""
    assert WHEELHOUSE.is_dir(), "run `make test`, which fills the wheelhouse"
    venv.create(folder, clear=True)
    # By the pip that is here, and without compiling what no test imports: half a minute less.
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "-q")
    source = ("--no-index", "--find-links", WHEELHOUSE)
    done = run(*pip, "--no-compile", *source, requirement)
    assert done.returncode == 0, done.stderr
    return folder / "bin"


@pytest.fixture(scope="module")
def light(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield installed(tmp_path_factory.mktemp("light"), str(wheel))


def test_without_the_extra_it_is_a_light_client(light: Path, tmp_path: Path) -> None:
    assert run(light / "safetrain", "--help").returncode == 0
    assert run(light / "python", "-c", "import mlx").returncode != 0
    asked = run(light / "safetrain", "status", env={"SAFETRAIN_HOME": str(tmp_path), "LANG": "C"})
    assert asked.returncode == 69
    assert "safetrain[daemon]" in asked.stderr
    assert "Traceback" not in asked.stderr


def test_the_wheel_carries_sample_and_catalogues(light: Path) -> None:
    code = (
        "import importlib.resources as r;"
        "print(sum(1 for _ in (r.files('safetrain') / 'sample' / 'farense_train.jsonl').open()));"
        "from safetrain_shared import i18n; print(i18n.translate('Paused as asked.', 'pt'))"
    )
    printed = run(light / "python", "-c", code)
    assert printed.returncode == 0, printed.stderr
    lines, sentence = printed.stdout.splitlines()
    assert int(lines) >= 150
    assert sentence == "Em pausa, como pedido."


def test_the_wheel_carries_the_types_of_every_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        marked = {name.split("/")[0] for name in packed.namelist() if name.endswith("/py.typed")}
    assert marked == {"safetrain", "safetraind", "safetrain_shared", "safetrain_proto"}


def test_with_the_extra_the_service_runs(wheel: Path, tmp_path: Path) -> None:
    bin_folder = installed(tmp_path / "venv", f"{wheel}[daemon]")
    env = {"SAFETRAIN_HOME": str(tmp_path / "home"), "LANG": "C"}
    assert run(bin_folder / "python", "-c", "import mlx.core, mlx_lm").returncode == 0
    started = run(bin_folder / "safetraind", "start", env=env)
    try:
        assert started.returncode == 0, started.stderr
        asked = run(bin_folder / "safetrain", "jobs", "--json", "--no-autostart", env=env)
        assert asked.returncode == 0, asked.stderr
        assert json.loads(asked.stdout) is not None
    finally:
        run(bin_folder / "safetraind", "stop", "--now", env=env)

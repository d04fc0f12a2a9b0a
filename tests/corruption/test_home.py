"""Every file of a home, damaged in every way: the daemon serves, and every other job ends as ever.

A sample in `make test`; all of it by `make corruption`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetrain_shared.errors import Damaged, Incompatible, NoRoom, NotAllowed
from safetrain_shared.jobs import JobSpec, JobState
from tests.corruption.damage import KINDS, UNPRIVILEGED, cases
from tests.daemon.conftest import PLAY
from tests.daemon.test_accidents import read_result, result_of
from tests.daemon.test_set_aside import state_of
from tests.harness import DaemonProcess, wait_for

pytestmark = pytest.mark.timeout(7200)

VICTIMS = (2, 3)  # one that has ended, one that was killed in training; 1 and 4 are the others
STEPS = 10
SECONDS = 60.0  # for all jobs to end
SAMPLE = 4
_REFUSALS = {error.exit_code for error in (Damaged, Incompatible, NoRoom, NotAllowed)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each case happens: the paths in the files are absolute."""
    return tmp_path_factory.mktemp("corruption") / "place"


@pytest.fixture(scope="module")
def template(place: Path) -> Iterator[Path]:
    """A home whose daemon was killed, and its outputs; to be copied to `place`."""
    place.mkdir()
    daemon = DaemonProcess(place / "home", PLAY)
    try:
        daemon.start()
        for name, play in (("1", "pace=0"), ("2", "pace=0"), ("3", "hold=4"), ("4", "pace=0")):
            job = daemon.submit(_spec(place, name, play)).job.id
            if name in "12":
                daemon.wait_for_state(job)
        wait_for(lambda: daemon.job(3).step == 4)
        wait_for((daemon.home.root / "jobs.db.daily").exists)
        for process in [*daemon.keepers(), *daemon.workers()]:
            process.kill()
        daemon.kill()
        wait_for(lambda: not daemon.processes())
    finally:
        daemon.end()
    (place / "home" / "daemon.sock").unlink(missing_ok=True)
    place.rename(place.with_name("template"))
    yield place.with_name("template")


def _spec(place: Path, name: str, play: str) -> JobSpec:
    model = place / "model"
    model.mkdir(exist_ok=True)
    for file in ("config.json", "tokenizer_config.json", "model.safetensors"):
        (model / file).write_text("{}")
    for file in ("train.jsonl", "valid.jsonl"):
        (place / file).write_text('{"text": "olá"}\n')
    paths = (str(model), str(place / "train.jsonl"), str(place / "valid.jsonl"))
    settings = {"save_steps": 2, "num_epochs": 1}
    return JobSpec(*paths, str(place / name), name=play, settings=settings)


def _files(template: Path) -> list[str]:
    """Every file of the home; of the jobs' folders those of the victims, by the first of them."""
    home = template / "home"
    found = {file.relative_to(home) for file in home.rglob("*") if file.is_file()}
    of_jobs = {file.name for file in found if file.parts[0] == "runs" and file.parts[1] in "23"}
    of_home = {str(file) for file in found if file.parts[0] != "runs"}
    return sorted(of_home | {f"runs/*/{name}" for name in of_jobs})


def test_every_file_of_a_home_damaged_in_every_way(template: Path, place: Path) -> None:
    found: Counter[str] = Counter()
    wrong = []
    for file, kind in cases(_files(template), SAMPLE):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(template, place)
        _damage(place / "home", file, kind)
        try:
            outcome = _tried(place, damaged_job="*" in file)
        except AssertionError as error:
            outcome = "wrong"
            wrong.append(f"{file} {kind}: {error}")
        found[outcome] += 1
    print(f"\nhome: {found.total()} corruptions: {dict(found)}")
    assert not wrong, "\n".join(wrong)


def _damage(home: Path, file: str, kind: str) -> None:
    for path in {home / file.replace("*", str(job)) for job in VICTIMS}:
        if path.is_file():
            KINDS[kind](path)


def _tried(place: Path, *, damaged_job: bool) -> str:
    """How it went. Raises AssertionError for what may not be."""
    daemon = DaemonProcess(place / "home", (*UNPRIVILEGED, *PLAY))
    outcome = "equal"
    try:
        if refusal := _refusal(daemon):
            if refusal in (Incompatible.exit_code, NotAllowed.exit_code):
                return "refused with a sentence"
            outcome = "restored"
        daemon.start()
        _let_all_end(daemon)
        jobs = {job: daemon.job(job) for job in (1, 2, 3, 4)}
        for number, job in jobs.items():
            state = state_of(job)
            if state is JobState.SUCCEEDED:
                assert read_result(place / str(number)) == result_of(STEPS), f"job {number}"
            else:
                where = f"job {number} is {state}: {job.cause.text}"
                assert number in VICTIMS and damaged_job and job.cause.text, where
                outcome = "set aside"
        assert "Traceback" not in (place / "home.stderr").read_text()
        assert daemon.terminate() == 0
    finally:
        daemon.end()
    return outcome


def _let_all_end(daemon: DaemonProcess) -> None:
    Path(f"{daemon.home.root.parent / '3'}.step.go").touch()
    for job in (1, 2, 3, 4):
        daemon.wait_for_state(job, seconds=SECONDS)


def _refusal(daemon: DaemonProcess) -> int:
    """Whether the daemon refuses to start, with a sentence; restores what can be. 0: it starts."""
    daemon.spawn()
    process = daemon.process
    assert process is not None

    def decided() -> bool:
        return process.poll() is not None or daemon.home.socket.exists()

    wait_for(decided)
    code = process.poll()
    if code is None:
        daemon.wait_until_serving()
        daemon.kill()
        return 0
    said = daemon.said()
    assert code in _REFUSALS, said
    if code in (Incompatible.exit_code, NotAllowed.exit_code):
        assert "safetraind: " in said and "Traceback" not in said, said
        return code
    assert "safetraind restore" in said, said
    done = subprocess.run(
        [sys.executable, "-m", "safetraind", "restore"],
        env=daemon.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return code

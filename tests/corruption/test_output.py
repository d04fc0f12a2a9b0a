"""Every file of an output folder, damaged in every way in mid-training: it ends equal to the bit.

Or it ends with a sentence. The trainer runs in this very process, which spares its start. A sample
in `make test`; all of it by `make corruption`.
"""

from __future__ import annotations

import json
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetrain_shared.events import Outcome
from safetrain_shared.paths import RunFolder
from safetraind.storage import event_file
from safetraind.worker.training import train
from tests.corruption.damage import KINDS, cases, unprivileged
from tests.tiny import make_chat_data, make_tiny_model
from tests.trainer.runs import Run, make_run

pytestmark = pytest.mark.timeout(7200)

HELD_AT = 8  # of twelve steps: two checkpoints and an evaluation are there by then
SAMPLE = 8


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """The trainer takes SIGTERM over."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each case happens: the paths in the files are absolute."""
    return tmp_path_factory.mktemp("output") / "place"


@pytest.fixture(scope="module")
def killed(place: Path) -> Run:
    """A run that was killed in mid-training; its copies stand for what is damaged."""
    model = make_tiny_model(place.parent / "model", layers=2, hidden=32)
    data = make_chat_data(place.parent / "data", train=22, valid=6)
    run = make_run(place, model, data)
    process = run.start(hold=HELD_AT)
    run.wait_for_hold()
    process.kill()
    process.wait()
    run.folder.socket.unlink(missing_ok=True)  # it cannot be copied
    place.rename(place.with_name("template"))
    return run


@pytest.fixture(scope="module")
def undisturbed(killed: Run, place: Path) -> bytes:
    """The adapter that the run comes to if nothing is damaged."""
    assert _finished(killed, place) == "succeeded"
    return killed.adapter()


def test_every_file_of_an_output_folder_damaged_in_every_way(
    killed: Run, undisturbed: bytes, place: Path
) -> None:
    template = place.with_name("template") / "out"
    files = sorted(str(f.relative_to(template)) for f in template.rglob("*") if f.is_file())
    found: Counter[str] = Counter()
    wrong = []
    for file, kind in cases(files, SAMPLE):
        try:
            outcome = _finished(killed, place, file, kind)
            if outcome == "succeeded":
                assert killed.adapter() == undisturbed, "another adapter"
        except Exception:
            outcome = "wrong"
            wrong.append(f"{file} {kind}: {traceback.format_exc(limit=-3)}")
        found[outcome] += 1
    print(f"\noutput folder: {found.total()} corruptions: {dict(found)}")
    assert not wrong, "\n".join(wrong)


def _finished(run: Run, place: Path, file: str = "", kind: str = "") -> str:
    """Damage a copy of the run and train it to its end; what it says last."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(place.with_name("template"), place)
    if kind:
        KINDS[kind](run.output / file)
    launch = {"role": "train", "attempt": 2, "seq_floor": 0, "boot_id": "test"}
    run.folder.launch.write_text(json.dumps(launch))
    with unprivileged():
        code = train.main([str(run.folder.root)])
    return _last_word(run.folder) if code == 0 else f"exit {code}"


def _last_word(run: RunFolder) -> str:
    bodies = [read.event.body for read in event_file.read(run.events)]
    outcome = bodies[-1]
    assert isinstance(outcome, Outcome)
    if outcome.outcome == "succeeded":
        return "succeeded"
    assert outcome.cause is not None
    return f"{outcome.outcome}: {outcome.cause.code}"

"""Two homes and one folder, each pair of verbs: what one home does to the folder leaves all of the
other's as it is, and never takes it for its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from safetrain.cli import main
from safetrain_proto.v1 import (
    answers_pb2,
    evaluations_pb2,
    evaluations_pb2_grpc,
    exports_pb2,
    exports_pb2_grpc,
    files_pb2,
    files_pb2_grpc,
    jobs_pb2,
)
from safetrain_shared.errors import Busy
from safetrain_shared.jobs import JobSpec, JobState
from safetrain_shared.wire import STATUS_DETAILS, error_from_wire
from safetraind.storage import folder_lock, training_state
from safetraind.storage.training_state import TrainingState
from tests.daemon.conftest import PLAY
from tests.daemon.fakes import let_go
from tests.daemon.test_faults import error_of
from tests.harness import DaemonProcess, wait_for

THEIRS = {
    "adapters/adapters.safetensors": "their weights",
    "adapters/adapter_config.json": "{}",
    "checkpoint_epoch_0_step_5/adapters.safetensors": "their checkpoint",
    "evaluation/evaluation.json": '{"format": 1, "job_id": 1}',
    "evaluation/answers-base.json": "[]",
    "plots/report.html": "their report",
    "plots/loss.png": "their plot",
    "tensorboard/job-1/events.out.tfevents.1": "their curves",
    "preflight_report.json": '{"theirs": true}',
    "training_metrics.json": "{}",
}


@dataclass(frozen=True)
class Shared:
    """Our daemon and the other home's; the folder that both have used, and what we may ask."""

    ours: DaemonProcess
    theirs: DaemonProcess
    spec: JobSpec

    @property
    def folder(self) -> Path:
        return Path(self.spec.output)

    def content(self) -> dict[str, bytes]:
        return {str(f): f.read_bytes() for f in sorted(self.folder.rglob("*")) if f.is_file()}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """Three jobs of ours used the folder: 1 is done, 2 was cancelled, 3 is paused. Then another
    home's job 1 trained there, which is done.
    """
    place = tmp_path_factory.mktemp("shared")
    model = place / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer_config.json", "model.safetensors"):
        (model / name).write_text("{}")
    data = place / "data.jsonl"
    data.write_text('{"text": "olá"}\n')
    spec = JobSpec(str(model), str(data), str(data), str(place / "out"), name="hold=2")
    ours, theirs = (DaemonProcess(place / name, PLAY) for name in ("ours", "theirs"))
    try:
        ours.start()
        theirs.start()
        _use(ours, spec, "finish", JobState.SUCCEEDED)
        _use(ours, spec, "Cancel", JobState.CANCELLED)
        other = dataclasses.replace(spec, settings={"learning_rate": 0.5})  # not job 2 again
        _use(ours, other, "Pause", JobState.PAUSED)
        _use(theirs, spec, "finish", JobState.SUCCEEDED)
        state = TrainingState(1, "succeeded", "of theirs", home=str(theirs.home.root))
        training_state.write(Path(spec.output), state)
        for name, text in THEIRS.items():
            file = Path(spec.output) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        yield Shared(ours, theirs, spec)
    finally:
        ours.end()
        theirs.end()


def _use(daemon: DaemonProcess, spec: JobSpec, how: str, state: JobState) -> None:
    """Trains in the folder, and leaves it in that state."""
    job = daemon.submit(spec).job.id
    wait_for(lambda: daemon.job(job).step == 2)
    if how == "finish":
        let_go(spec.output)
    else:
        getattr(daemon.jobs, how)(jobs_pb2.JobRequest(id=job))
    daemon.wait_for_state(job, state)
    for left in Path(spec.output).iterdir():  # a play knows no owner
        left.unlink()
    Path(f"{spec.output}.step.go").unlink(missing_ok=True)


def submit(shared: Shared) -> None:
    shared.ours.submit(shared.spec)


def submit_fresh(shared: Shared) -> None:
    shared.ours.submit(shared.spec, fresh=True)


def submit_fresh_of_theirs(shared: Shared) -> None:
    shared.theirs.submit(shared.spec, fresh=True)


def retry(shared: Shared) -> None:
    shared.ours.jobs.Retry(jobs_pb2.JobRequest(id=2))


def resume(shared: Shared) -> None:
    shared.ours.jobs.Resume(jobs_pb2.JobRequest(id=3))


def remove_files(shared: Shared) -> None:
    shared.ours.jobs.Remove(jobs_pb2.RemoveJobRequest(id=2, files=True))


def ask(shared: Shared) -> None:
    message = answers_pb2.Message(role="user", content="Quem?")
    list(shared.ours.answers.Ask(answers_pb2.AskRequest(job_id=1, messages=[message]), timeout=30))


def export(shared: Shared) -> None:
    stub = exports_pb2_grpc.ExportsStub(shared.ours.channel)
    output = str(shared.folder.with_name("exported"))
    list(stub.Run(exports_pb2.ExportRequest(job_id=1, output=output), timeout=30))


def export_into_it(shared: Shared) -> None:
    stub = exports_pb2_grpc.ExportsStub(shared.ours.channel)
    list(stub.Run(exports_pb2.ExportRequest(job_id=1, output=shared.spec.output), timeout=30))


def evaluate(shared: Shared) -> None:
    _evaluate(shared, evaluations_pb2.EvaluateRequest(job_id=1))


def evaluate_another_adapter(shared: Shared) -> None:
    folder = str(shared.folder.with_name("model"))
    _evaluate(shared, evaluations_pb2.EvaluateRequest(job_id=1, folder=folder))


def _evaluate(shared: Shared, request: evaluations_pb2.EvaluateRequest) -> None:
    list(evaluations_pb2_grpc.EvaluationsStub(shared.ours.channel).Run(request, timeout=30))


def promote(shared: Shared) -> None:
    request = evaluations_pb2.PromoteRequest(job_id=1, checkpoint="checkpoint_epoch_0_step_5")
    evaluations_pb2_grpc.EvaluationsStub(shared.ours.channel).Promote(request)


def fetch(shared: Shared) -> None:
    stub = files_pb2_grpc.FilesStub(shared.ours.channel)
    assert not stub.List(files_pb2.JobFilesRequest(job_id=1)).files
    list(stub.Get(files_pb2.GetRequest(job_id=1, name="adapters/adapters.safetensors")))


VERBS: list[tuple[Callable[[Shared], None], str]] = [
    (submit, "job.output_of_other_home"),
    (submit_fresh, "job.output_of_other_home"),
    (retry, "job.output_replaced"),
    (resume, "job.output_replaced"),
    (ask, "ask.adapter_of_other_home"),
    (export, "ask.adapter_of_other_home"),
    (export_into_it, "export.output_taken"),
    (evaluate, "ask.adapter_of_other_home"),
    (evaluate_another_adapter, "ask.adapter_of_other_home"),
    (promote, "ask.no_adapter"),
    (fetch, "files.none"),
]


@contextlib.contextmanager
def training_theirs(shared: Shared) -> Iterator[None]:
    """The folder's lock is held, as by the worker of a training of theirs."""
    with folder_lock.claimed(shared.folder):
        yield


def wrong_verbs(shared: Shared, verbs: Sequence[tuple[Callable[[Shared], None], str]]) -> list[str]:
    """The verbs that were answered otherwise than they should be, or that changed the folder."""
    before, wrong = shared.content(), []
    for verb, expected in verbs:
        code = ""
        try:
            verb(shared)
        except grpc.RpcError as error:
            code = error_from_wire(dict(error.trailing_metadata())[STATUS_DETAILS]).code  # type: ignore[attr-defined]
        if code != expected:
            wrong.append(f"{verb.__name__}: {code or 'accepted'}, not {expected or 'accepted'}")
        if shared.content() != before:
            wrong.append(f"{verb.__name__}: the folder is another")
            before = shared.content()
    return wrong


def test_while_they_train_there(shared: Shared) -> None:
    with training_theirs(shared):
        assert not wrong_verbs(shared, [*VERBS, (remove_files, "folder.busy")])


def test_before_their_training_has_written_whose_it_is(shared: Shared) -> None:
    state = shared.folder / "training_state.json"
    text = state.read_text()
    state.unlink()
    with training_theirs(shared):
        verbs = [(submit_fresh_of_theirs, "folder.busy"), (remove_files, "folder.busy")]
        assert not wrong_verbs(shared, verbs)
    state.write_text(text)


def test_a_report_and_plots_of_ours_are_drawn_elsewhere(
    shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shared.content()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAFETRAIN_HOME", str(shared.ours.home.root))
    assert main(["report", "1"]) == 0
    assert (tmp_path / "job-1" / "plots" / "report.html").is_file()
    assert main(["plot", "1"]) == 0
    assert (tmp_path / "job-1" / "plots" / "loss.png").is_file()
    assert shared.content() == before


def test_after_their_training_and_last_when_ours_is_removed_with_its_files(shared: Shared) -> None:
    assert not wrong_verbs(shared, [*VERBS, (remove_files, "")])
    assert shared.theirs.job(1).id == 1


def test_a_job_that_waited_while_they_trained_there_fails_with_the_cause(shared: Shared) -> None:
    spec = dataclasses.replace(
        shared.spec, output=f"{shared.spec.output}2", name="check=0.5,pace=0"
    )
    job = shared.ours.submit(spec).job.id
    state = TrainingState(1, "succeeded", "of theirs", home=str(shared.theirs.home.root))
    Path(spec.output).mkdir()
    training_state.write(Path(spec.output), state)
    shared.ours.wait_for_state(job, JobState.FAILED)
    assert shared.ours.job(job).cause.code == "job.output_replaced"
    assert shared.ours.job(job).attempt == 1
    assert [file.name for file in Path(spec.output).iterdir()] == ["training_state.json"]


@pytest.mark.parametrize("inside", ["", "runs/1", "models/x", "learned"])
def test_the_folders_of_another_home_are_no_output_folders(inside: str, shared: Shared) -> None:
    spec = dataclasses.replace(shared.spec, output=str(shared.theirs.home.root / inside))
    with pytest.raises(grpc.RpcError) as caught:
        shared.ours.submit(spec)
    assert error_of(caught).code == "path.ours"


def test_a_temporary_folder_is_of_one_process_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / ".model.partial"
    folder.mkdir()
    (folder / "left").touch()  # by a process that was killed
    with folder_lock.temporary(folder):
        assert not list(folder.iterdir())
        (folder / "ours").touch()
        with pytest.raises(Busy), folder_lock.temporary(folder):
            pass
        folder_lock.remove_unclaimed(folder)
        assert (folder / "ours").exists()
    assert not folder.exists()


def test_what_was_given_its_final_name_stays(tmp_path: Path) -> None:
    folder = tmp_path / ".model.partial"
    with folder_lock.temporary(folder):
        folder.rename(tmp_path / "model")
        folder.mkdir()  # of another process by now
    assert folder.is_dir() and (tmp_path / "model").is_dir()

"""`Job`: a training, with its state, metrics, events and controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetrain.api.evaluation import Evaluation, evaluation_of
from safetrain.api.metrics import Metrics
from safetrain.connection import Daemon
from safetrain.follower import Follower, events_so_far
from safetrain.inputs import absolute
from safetrain.model_programs.giving import needs_gguf, prepared
from safetrain.remote.local_files import LocalFiles, output_there
from safetrain.views.curves import curves_of
from safetrain.views.json_output import exported_to_json, message_to_json
from safetrain_proto.v1 import jobs_pb2
from safetrain_proto.v1.evaluations_pb2 import EvaluateEvent, EvaluateRequest, PromoteRequest
from safetrain_proto.v1.exports_pb2 import ExportEvent, ExportRequest
from safetrain_proto.v1.jobs_pb2 import JobRequest, MoveJobRequest, RemoveJobRequest
from safetrain_shared.atomic_write import write_files
from safetrain_shared.events import Evaluated, Event, StepDone
from safetrain_shared.jobs import JobSpec, JobState, Plan
from safetrain_shared.wire import plan_from_wire, spec_from_wire, state_from_wire


class Job:
    """One job, as it was when it was last fetched.

    `refresh`, `wait` and the controls fetch it again; properties make no call.
    """

    def __init__(self, daemon: Daemon, message: jobs_pb2.Job) -> None:
        self._daemon = daemon
        self._message = message

    def __repr__(self) -> str:
        return f"Job({self.id}, {self.state})"

    def refresh(self) -> Job:
        """Fetch the job again and return it. Raises NotFound where it was removed."""
        self._call(self._daemon.jobs.Get, again=True)
        return self

    @property
    def id(self) -> int:
        """The job's number, which is never reused."""
        return int(self._message.id)

    @property
    def spec(self) -> JobSpec:
        """The job as it was submitted."""
        return spec_from_wire(self._message.spec)

    @property
    def state(self) -> JobState | None:
        """The state; None for one that only a newer version knows."""
        return state_from_wire(self._message.state)

    @property
    def plan(self) -> Plan | None:
        """The plan for this machine; None until it is frozen."""
        return plan_from_wire(self._message.plan) if self._message.HasField("plan") else None

    @property
    def last_seq(self) -> int:
        """The `seq` of the newest event."""
        return int(self._message.last_seq)

    @property
    def status(self) -> dict[str, Any]:
        """All fields, as `safetrain status --json` prints them."""
        return message_to_json(self._message)

    def metrics(self) -> Metrics:
        """Return the metrics so far, one row per logged or evaluated step."""
        return Metrics(events_so_far(self._daemon, self.id))

    def best(self) -> Evaluated | None:
        """Return the evaluation with the lowest loss so far; `adapters/` has its weights."""
        return curves_of(events_so_far(self._daemon, self.id)).best

    def report(self, output: str | None = None, *, answers: bool = False) -> Path:
        """Write the report and return its path; by default plots/report.html in its folder.

        `answers`: base model and adapter answer a few questions of the validation data. Raises
        NoRoom, NotAllowed.
        """
        from safetrain.report.make_report import default_path, default_questions, make_report

        job = self.refresh()._message
        path = Path(absolute(output)) if output else default_path(job, self._daemon.host)
        questions = default_questions(job, self._daemon.host) if answers else []
        html = make_report(self._daemon, job, questions, lambda _text: None)
        write_files({path: html.encode()})
        return path

    def fetch(self, folder: str | None = None) -> list[Path]:
        """Bring its results here and return the files that changed; by default into job-ID.

        For a job of another machine. Raises Broken, NotAllowed, Unreachable.
        """
        from safetrain.remote.fetch import fetch

        return fetch(self._daemon, self.id, Path(absolute(folder or f"job-{self.id}")))

    def export(
        self,
        output: str,
        *,
        checkpoint: str = "",
        gguf: bool = False,
        gguf_type: str = "",
        dequantize: bool = False,
        to: str = "",
        wait: bool = False,
    ) -> dict[str, Any]:
        """Fuse its best adapter (or a checkpoint's) into a model folder of its own.

        `gguf_type`: f16 (the default), q8_0 or q4_1; implies `gguf`. `to`: the program of this
        machine, ollama or lm-studio, that is given the model too. On another machine the folder
        lies there.

        Returns what `safetrain export --json` prints. Raises Busy, Conflict, InvalidInput,
        NotFound, NoRoom; Unreachable where the program is not here.
        """
        give = prepared(to, absolute(output), self._daemon.host) if to else None
        request = ExportRequest(
            job_id=self.id,
            output=output_there(self._daemon, absolute(output)),
            checkpoint=checkpoint,
            gguf=gguf or bool(gguf_type) or needs_gguf(to),
            gguf_type=gguf_type,
            dequantize=dequantize,
            wait=wait,
        )
        exported = ExportEvent()
        for event in self._daemon.stream(self._daemon.exports.Run, request):
            exported = event
        done = exported.exported
        return exported_to_json(done, to, give(done) if give else None)

    def evaluate(
        self,
        questions: str | None = None,
        *,
        checkpoint: str = "",
        checkpoints: bool = False,
        exported: str = "",
        general: bool = False,
        max_tokens: int = 0,
        limit: int = 0,
        tasks: Sequence[str] = (),
    ) -> Evaluation:
        """Ask base and adapter the same questions and compare their answers, in a job of its own.

        `questions`: a question set; by default that of the training, else the questions.jsonl
        beside its data, else the validation data. `checkpoints`: score every kept checkpoint on
        half of them and report the best on the others. `exported`: the folder of an exported model
        in place of the adapter. `general`: general questions, for what it forgot. `tasks`:
        benchmarks of lm-evaluation-harness (extra `tasks`). `max_tokens`: of an answer; 0: half as
        many again as the longest of the training data. `limit`: questions at most; 0: all. Raises
        InvalidInput for questions that stand in the training data, NotFound without an adapter.
        """
        local = LocalFiles(self._daemon)
        request = EvaluateRequest(
            job_id=self.id,
            questions=local.there(absolute(questions)) if questions else "",
            checkpoint=checkpoint,
            checkpoints=checkpoints,
            folder=local.model_there(absolute(exported)) if exported else "",
            general=general,
            max_tokens=max_tokens,
            limit=limit,
            tasks=tasks,
        )
        last = EvaluateEvent()
        for event in self._daemon.stream(self._daemon.evaluations.Run, request):
            last = event
        return evaluation_of(local.shown(last.evaluation), self._daemon.lang)

    @property
    def evaluation(self) -> Evaluation | None:
        """The newest verdict on it, without single answers; None where there is none."""
        known = self._message.HasField("evaluation")
        return evaluation_of(self._message.evaluation, self._daemon.lang) if known else None

    def promote(self, checkpoint: str = "task") -> str:
        """Put a kept checkpoint's adapter in `adapters/` and return the checkpoint's name.

        `checkpoint`: a folder name; `task`: the best of the last evaluation with `checkpoints`;
        `best-loss`: the one with the lowest validation loss. Raises Conflict, NotFound, Damaged.
        """
        request = PromoteRequest(job_id=self.id, checkpoint=checkpoint)
        return str(self._daemon.call(self._daemon.evaluations.Promote, request).checkpoint)

    def events(self, after_seq: int = 0) -> Iterator[Event]:
        """Yield the events after `after_seq` as they arrive, until the job has ended.

        Continues across restarts of the daemon, each event once.
        """
        for events, _up_to_date in Follower(self._daemon, self.id, after_seq).batches():
            yield from events

    def steps(self) -> Iterator[StepDone]:
        """Yield each logged step, until the job has ended."""
        return (event.body for event in self.events() if isinstance(event.body, StepDone))

    def evaluations(self) -> Iterator[Evaluated]:
        """Yield each evaluation of the validation loss, until the job has ended."""
        return (event.body for event in self.events() if isinstance(event.body, Evaluated))

    def wait(self) -> JobState:
        """Wait until it has ended and return how: succeeded, failed or cancelled."""
        follower = Follower(self._daemon, self.id, self.last_seq)
        for _events in follower.batches():
            pass
        self.refresh()
        assert follower.state is not None  # set when the batches end
        return follower.state

    def pause(self) -> None:
        """Pause it at its next step, with a checkpoint. Raises AlreadyFinished."""
        self._call(self._daemon.jobs.Pause)

    def resume(self) -> None:
        """Let it go on, from the head of the queue. Raises Conflict, AlreadyFinished."""
        self._call(self._daemon.jobs.Resume)

    def cancel(self) -> None:
        """End it at its next step, with a checkpoint. Raises AlreadyFinished."""
        self._call(self._daemon.jobs.Cancel)

    def retry(self) -> None:
        """Try it again from its last checkpoint, where it failed or was cancelled."""
        self._call(self._daemon.jobs.Retry)

    def move(self, *, first: bool = True) -> None:
        """Move it to the front or the end of the queue. Raises Conflict where it is not there."""
        request = MoveJobRequest(id=self.id, first=first)
        self._message = self._daemon.call(self._daemon.jobs.Move, request)

    def remove(self, *, files: bool = False) -> list[str]:
        """Remove the job; `files`: delete what it wrote. Return the files that were kept."""
        request = RemoveJobRequest(id=self.id, files=files)
        return list(self._daemon.call(self._daemon.jobs.Remove, request).kept)

    def _call(self, method: Any, *, again: bool = False) -> None:
        self._message = self._daemon.call(method, JobRequest(id=self.id), again=again)

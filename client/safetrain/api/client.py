"""`Client`: a connection, and what one can ask of the daemon through it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypedDict, Unpack

from safetrain import inputs
from safetrain.api.answer import QUESTION, Answer, Question, parts, request
from safetrain.api.job import Job
from safetrain.api.keywords import keywords
from safetrain.api.preflight_result import Preflight
from safetrain.connection import Daemon
from safetrain_proto.v1.answers_pb2 import AskEvent
from safetrain_proto.v1.data_pb2 import ValidateRequest
from safetrain_proto.v1.jobs_pb2 import JobRequest, ListJobsRequest, SubmitRequest
from safetrain_proto.v1.preflight_pb2 import PreflightRequest
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetrain_shared.paths import Home
from safetrain_shared.settings import SettingValue, checked
from safetrain_shared.wire import finding_from_wire, spec_to_wire

_JOBS_AT_ONCE = 200
_SUBMIT_SECONDS = 300.0


class Wanted(TypedDict, total=False):
    """What describes a training; all of it may be left out, as on the command line.

    `model`: a known name, a folder, or a name on the hub. `train`, `valid`: files of JSON lines.
    `output`: the folder for checkpoints and adapter. `settings`: what to choose oneself, by the
    names of `safetrain explain`. `memory_budget`: bytes, or text such as "6GB".
    """

    model: str
    train: str | None
    valid: str | None
    output: str
    settings: Mapping[str, SettingValue]
    memory_budget: int | str
    allow_shorter: bool
    trust_remote_code: bool
    name: str


WANTED: Mapping[str, Any] = {
    "model": inputs.DEFAULT_MODEL,
    "train": None,
    "valid": None,
    "output": inputs.DEFAULT_OUTPUT,
    "settings": {},
    "memory_budget": 0,
    "allow_shorter": False,
    "trust_remote_code": False,
    "name": "",
}


class Client:
    """A connection to the daemon of a home. Close it, or use it in a `with` block.

    `lang`: the language of its errors and preflights, `en` or `pt`; by default the locale's, as
    for the commands. Two clients may speak two languages.
    """

    def __init__(
        self, home: str | None = None, *, autostart: bool = True, lang: str | None = None
    ) -> None:
        chosen = Home(Path(home).expanduser().absolute()) if home else None
        self.daemon = Daemon(chosen, autostart=autostart, lang=lang)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; daemon and jobs go on."""
        self.daemon.close()

    @keywords(Wanted, WANTED)
    def preflight(self, *, wait: bool = False, **wanted: Unpack[Wanted]) -> Preflight:
        """Checks machine, data and model and recommends settings.

        `wait`: for the GPU, where it is busy; otherwise the recommendation is then predicted, not
        measured. Raises InvalidInput, NotFound; what blocks is told by `Preflight.blocked`.
        """
        sheet = Preflight(lang=self.daemon.lang)
        message = PreflightRequest(spec=spec_to_wire(self._spec_of(wanted)), wait=wait)
        for event in self.daemon.stream(self.daemon.preflight.Run, message):
            sheet.take(event)
        return sheet

    @keywords(Wanted, WANTED)
    def submit(
        self, *, fresh: bool = False, after: Job | int | None = None, **wanted: Unpack[Wanted]
    ) -> Job:
        """Queues a training and returns its job at once.

        `fresh`: move an old run in the output folder aside. `after`: start when that job has
        ended. Raises Blocked, Conflict, InvalidInput, InvalidSetting, NotFound.
        """
        with self.daemon.language():
            number = after.id if isinstance(after, Job) else inputs.job_number(after or 0)
        message = SubmitRequest(
            spec=spec_to_wire(self._spec_of(wanted)),
            idempotency_key=uuid.uuid4().hex,
            fresh=fresh,
            after=number,
        )
        daemon = self.daemon
        answer = daemon.call(daemon.jobs.Submit, message, seconds=_SUBMIT_SECONDS, again=True)
        return Job(daemon, answer.job)

    def job(self, number: int) -> Job:
        """The job of that number. Raises NotFound."""
        daemon = self.daemon
        with self.daemon.language():
            request = JobRequest(id=inputs.job_number(number))
        return Job(daemon, daemon.call(daemon.jobs.Get, request, again=True))

    def jobs(self) -> list[Job]:
        """All jobs, the oldest first."""
        daemon, found = self.daemon, []
        request = ListJobsRequest(page_size=_JOBS_AT_ONCE)
        while True:
            page = daemon.call(daemon.jobs.List, request, again=True)
            found += [Job(daemon, job) for job in page.jobs]
            if not page.next_page_token:  # an older daemon sends them all at once
                return found
            request.page_token = page.next_page_token

    @keywords(Question, QUESTION)
    def ask(self, question: str, **options: Unpack[Question]) -> Answer:
        """The whole answer to a question; `Answer.text` is what the model said.

        Without `job`: the model in training, else the newest finished job's adapter, else the
        base. Raises Busy where another job holds the GPU and `wait` is not set.
        """
        answer = Answer()
        for event in self._asked(question, options):
            answer = answer.taking(event)
        return answer

    @keywords(Question, QUESTION)
    def ask_stream(self, question: str, **options: Unpack[Question]) -> Iterator[str]:
        """The answer in pieces, as they come."""
        yield from parts(self._asked(question, options))

    def validate(self, *files: str) -> Iterator[Finding]:
        """Every problem of training files as it is found; `args` has its `path` and `line`."""
        with self.daemon.language():
            message = ValidateRequest(paths=[inputs.absolute(file) for file in files])
        for event in self.daemon.stream(self.daemon.data.Validate, message):
            if event.HasField("problem"):
                yield finding_from_wire(event.problem)

    def _spec_of(self, wanted: Wanted) -> JobSpec:
        with self.daemon.language():
            return spec_of(wanted)

    def _asked(self, question: str, options: Question) -> Iterator[AskEvent]:
        with self.daemon.language():
            message = request(question, options)
        return self.daemon.stream(self.daemon.answers.Ask, message)


def spec_of(wanted: Wanted) -> JobSpec:
    """The job that is wanted, complete and with absolute paths.

    Raises InvalidInput, InvalidSetting, NotFound.
    """
    given: dict[str, Any] = {**WANTED, **wanted}
    train, valid = inputs.data(given["train"], given["valid"])
    budget = given["memory_budget"]
    return JobSpec(
        model=inputs.model(given["model"]),
        train=train,
        valid=valid,
        output=inputs.absolute(given["output"]),
        name=given["name"],
        settings={name: checked(name, value) for name, value in given["settings"].items()},
        memory_budget=budget if isinstance(budget, int) else inputs.memory(budget),
        trust_remote_code=given["trust_remote_code"],
        allow_shorter=given["allow_shorter"],
    )

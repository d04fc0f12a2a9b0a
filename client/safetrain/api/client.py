"""`Client`: a connection to the daemon and its calls."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from safetrain import inputs, split
from safetrain.api.answer import ASK_DEFAULTS, Answer, AskOptions, answer_of, request
from safetrain.api.data_files import Prepared, Preview, prepared_of, preview_of
from safetrain.api.job import Job
from safetrain.api.keywords import keywords
from safetrain.api.preflight_result import Preflight
from safetrain.asking import ask
from safetrain.connection import Daemon
from safetrain.remote.local_files import LocalFiles
from safetrain_proto.v1 import jobs_pb2
from safetrain_proto.v1.answers_pb2 import AskEvent
from safetrain_proto.v1.data_pb2 import PrepareRequest, PreviewRequest, ValidateRequest
from safetrain_proto.v1.jobs_pb2 import JobRequest, ListJobsRequest, SubmitRequest
from safetrain_proto.v1.preflight_pb2 import PreflightRequest
from safetrain_shared.errors import InvalidInput, Unreachable
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec
from safetrain_shared.paths import Home
from safetrain_shared.settings import SettingValue, checked
from safetrain_shared.wire import finding_from_wire, settings_to_wire, spec_to_wire

_JOBS_AT_ONCE = 200
_SUBMIT_SECONDS = 300.0
_PREVIEW_SECONDS = 600.0  # a tokenizer of the hub is downloaded first


class JobOptions(TypedDict, total=False):
    """The description of a training, all optional, as on the command line.

    `model`: a known name, a folder, or a name on the hub. `data`: a folder that `safetrain prepare`
    wrote, in place of `train` and `valid`, files of JSON lines. `split`: the share of the samples
    for validation, where there is no `valid`.
    `output`: the folder for checkpoints and adapter. `settings`: overrides, with the names of
    `safetrain explain`. `memory_budget`: bytes, or text such as "6GB". `questions`: a question set
    to ask after the training; by default the questions.jsonl beside `train`.
    """

    model: str
    data: str | None
    train: str | None
    valid: str | None
    split: float | None
    output: str
    settings: Mapping[str, SettingValue]
    memory_budget: int | str
    allow_shorter: bool
    trust_remote_code: bool
    name: str
    questions: str | None


JOB_DEFAULTS: Mapping[str, Any] = {
    "model": inputs.DEFAULT_MODEL,
    "data": None,
    "train": None,
    "valid": None,
    "split": None,
    "output": inputs.DEFAULT_OUTPUT,
    "settings": {},
    "memory_budget": 0,
    "allow_shorter": False,
    "trust_remote_code": False,
    "name": "",
    "questions": None,
}


class Client:
    """A connection to the daemon of a home. Close it, or use it in a `with` block.

    `lang`: the language of its errors and preflights, `en` or `pt`; by default the locale's, as
    for the commands. Two clients may speak two languages. `host`: another machine, by its name in
    `safetrain hosts` or in ssh, in place of `home`.
    """

    def __init__(
        self,
        home: str | None = None,
        *,
        autostart: bool = True,
        lang: str | None = None,
        host: str = "",
    ) -> None:
        chosen = Home(Path(home).expanduser().absolute()) if home else None
        self.daemon = Daemon(chosen, autostart=autostart, lang=lang, host=host)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; daemon and jobs go on."""
        self.daemon.close()

    @keywords(JobOptions, JOB_DEFAULTS)
    def preflight(self, *, wait: bool = False, **options: Unpack[JobOptions]) -> Preflight:
        """Check machine, data and model and recommend settings.

        `wait`: wait for a busy GPU; otherwise the recommendation is then predicted, not measured.
        Raises InvalidInput, NotFound. `Preflight.blocked` is set where nothing can be trained.
        """
        result = Preflight(lang=self.daemon.lang)
        message = PreflightRequest(spec=self._spec_of(options), wait=wait)
        for event in self.daemon.stream(self.daemon.preflight.Run, message):
            result.take(event)
        return result

    @keywords(JobOptions, JOB_DEFAULTS)
    def submit(
        self, *, fresh: bool = False, after: Job | int | None = None, **options: Unpack[JobOptions]
    ) -> Job:
        """Queue a training and return its job at once.

        `fresh`: move an old run in the output folder aside. `after`: start once that job has
        ended. Raises Blocked, Conflict, InvalidInput, InvalidSetting, NotFound.
        """
        with self.daemon.language():
            number = after.id if isinstance(after, Job) else inputs.job_number(after or 0)
        message = SubmitRequest(
            spec=self._spec_of(options),
            idempotency_key=uuid.uuid4().hex,
            fresh=fresh,
            after=number,
        )
        daemon = self.daemon
        answer = daemon.call(daemon.jobs.Submit, message, seconds=_SUBMIT_SECONDS, again=True)
        return Job(daemon, answer.job)

    def job(self, number: int) -> Job:
        """Return job `number`. Raises NotFound."""
        daemon = self.daemon
        with self.daemon.language():
            request = JobRequest(id=inputs.job_number(number))
        return Job(daemon, daemon.call(daemon.jobs.Get, request, again=True))

    def jobs(self) -> list[Job]:
        """Return all jobs, the oldest first."""
        daemon, found = self.daemon, []
        request = ListJobsRequest(page_size=_JOBS_AT_ONCE)
        while True:
            page = daemon.call(daemon.jobs.List, request, again=True)
            found += [Job(daemon, job) for job in page.jobs]
            if not page.next_page_token:  # an older daemon sends them all at once
                return found
            request.page_token = page.next_page_token

    @keywords(AskOptions, ASK_DEFAULTS)
    def ask(self, question: str, **options: Unpack[AskOptions]) -> Answer:
        """Return the complete answer to a question.

        Without `job`: the model in training, else the newest finished job's adapter, else the
        base. Raises Busy where another job holds the GPU and `wait` is not set.
        """
        return answer_of(self._ask(question, options))

    @keywords(AskOptions, ASK_DEFAULTS)
    def ask_stream(self, question: str, **options: Unpack[AskOptions]) -> Iterator[str]:
        """Yield the answer in pieces, as they arrive.

        Raises Unreachable where the link to another machine broke and the answer, asked for again,
        is another one.
        """
        begun = False
        for event in self._ask(question, options):
            if event.HasField("source") and begun:
                raise Unreachable("host.lost", host=self.daemon.host)
            if event.HasField("text"):
                begun = True
                yield event.text

    def validate(self, *files: str) -> Iterator[Finding]:
        """Yield every problem of training files; `args` has its `path` and `line`."""
        with self.daemon.language():
            local = LocalFiles(self.daemon)
            message = ValidateRequest(paths=[local.there(inputs.absolute(file)) for file in files])
        for event in map(local.shown, self.daemon.stream(self.daemon.data.Validate, message)):
            if event.HasField("problem"):
                yield finding_from_wire(event.problem)

    def prepare(
        self,
        *files: str,
        output: str,
        columns: Mapping[str, str] | None = None,
        weights: Sequence[float] = (),
        valid: float = 0.1,
        questions: float = 0.0,
        seed: int = 0,
    ) -> Prepared:
        """Make training files in the folder `output` of spreadsheets, dumps and texts.

        `columns`: which column holds the question, answer, system, text or messages. `weights`: how
        often each file's samples are written, by their order; empty: once. `valid`, `questions`:
        the shares held out for validation and for evaluation, 0 to 1. Raises InvalidInput,
        InvalidSetting, NotAllowed, NotFound.
        """
        with self.daemon.language():
            if self.daemon.host:
                raise InvalidInput("host.prepare", host=self.daemon.host)
            message = PrepareRequest(
                paths=[inputs.source(file) for file in files],
                output=inputs.absolute(output),
                columns=inputs.columns(columns or {}),
                weights=weights,
                valid_share=valid,
                questions_share=questions,
                seed=seed,
            )
        events = self.daemon.stream(self.daemon.data.Prepare, message)
        return prepared_of(events, self.daemon.lang)

    def preview(
        self,
        file: str,
        *,
        model: str = inputs.DEFAULT_MODEL,
        samples: int = 3,
        length: int = 0,
        settings: Mapping[str, SettingValue] | None = None,
    ) -> Preview:
        """Return samples of a file as the model will see them, learned tokens marked.

        `length`: tokens at which samples would be cut; 0: nowhere. `settings`: mask_prompt and
        thinking count. Raises InvalidInput, InvalidSetting, NotFound.
        """
        with self.daemon.language():
            given = {name: checked(name, value) for name, value in (settings or {}).items()}
            local = LocalFiles(self.daemon)
            message = PreviewRequest(
                path=local.there(inputs.absolute(file)),
                model=local.model_there(inputs.model(model)),
                samples=samples,
                max_seq_length=length,
                settings=settings_to_wire(given),
            )
        daemon, seconds = self.daemon, _PREVIEW_SECONDS
        answer = daemon.call(daemon.data.Preview, message, seconds=seconds, again=True)
        return preview_of(local.shown(answer), length, daemon.lang)

    def _spec_of(self, options: JobOptions) -> jobs_pb2.JobSpec:
        share = options.get("split")
        with self.daemon.language():
            message = spec_to_wire(spec_of(options))
            local = message.train
            if self.daemon.host:
                from safetrain.remote.job_spec import for_host

                message = for_host(self.daemon, message, lambda _share: None)
            if share is not None:
                split.split_data(self.daemon, message, share, local=local)
        return message

    def _ask(self, question: str, options: AskOptions) -> Iterator[AskEvent]:
        with self.daemon.language():
            message = request(question, options)
            message.model = LocalFiles(self.daemon).model_there(message.model)
        return ask(self.daemon, message)


def spec_of(options: JobOptions) -> JobSpec:
    """Return the job of the options, complete and with absolute paths.

    Raises InvalidInput, InvalidSetting, NotFound.
    """
    given: dict[str, Any] = {**JOB_DEFAULTS, **options}
    named = inputs.named_data(given["data"], given["train"], given["valid"])
    train, valid = inputs.data(*named, split=given["split"] is not None)
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
        evaluation=inputs.evaluation(given["questions"], train),
    )

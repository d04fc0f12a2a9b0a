"""The API for asyncio: `AsyncClient` and `AsyncJob`.

Calls run in threads, so the event loop stays free. The methods are documented at their namesakes
in `Client` and `Job`. What is not covered: more than `_THREADS` concurrent streams of one client
wait for one another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack, cast

from safetrain.api.answer import ASK_DEFAULTS, Answer, AskOptions
from safetrain.api.client import JOB_DEFAULTS, Client, JobOptions
from safetrain.api.data_files import Prepared, Preview
from safetrain.api.job import Job
from safetrain.api.keywords import keywords
from safetrain.api.preflight_result import Preflight
from safetrain_shared.events import Evaluated, Event, StepDone
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobSpec, JobState, Plan

_THREADS = 32
_END = object()
P = ParamSpec("P")
T = TypeVar("T")


class AsyncClient:
    """`Client` for asyncio. Await it to connect, or use it in an `async with` block."""

    def __init__(
        self,
        home: str | None = None,
        *,
        autostart: bool = True,
        lang: str | None = None,
        host: str = "",
    ) -> None:
        self._connect = partial(Client, home, autostart=autostart, lang=lang, host=host)
        self._threads = ThreadPoolExecutor(_THREADS, "safetrain")
        self._client: Client | None = None

    def __await__(self) -> Generator[Any, None, AsyncClient]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> AsyncClient:
        self._client = await self.run(self._connect)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; daemon and jobs go on."""
        if self._client is not None:
            self._client.close()
        self._threads.shutdown(wait=False)

    @keywords(JobOptions, JOB_DEFAULTS)
    async def preflight(self, *, wait: bool = False, **options: Unpack[JobOptions]) -> Preflight:
        """`Client.preflight`."""
        return await self.run(self.client.preflight, wait=wait, **options)

    @keywords(JobOptions, JOB_DEFAULTS)
    async def submit(
        self,
        *,
        fresh: bool = False,
        after: AsyncJob | int | None = None,
        **options: Unpack[JobOptions],
    ) -> AsyncJob:
        """`Client.submit`."""
        number = after.id if isinstance(after, AsyncJob) else after
        job = await self.run(self.client.submit, fresh=fresh, after=number, **options)
        return AsyncJob(self, job)

    async def job(self, number: int) -> AsyncJob:
        """`Client.job`."""
        return AsyncJob(self, await self.run(self.client.job, number))

    async def jobs(self) -> list[AsyncJob]:
        """`Client.jobs`."""
        return [AsyncJob(self, job) for job in await self.run(self.client.jobs)]

    @keywords(AskOptions, ASK_DEFAULTS)
    async def ask(self, question: str, **options: Unpack[AskOptions]) -> Answer:
        """`Client.ask`."""
        return await self.run(self.client.ask, question, **options)

    @keywords(AskOptions, ASK_DEFAULTS)
    def ask_stream(self, question: str, **options: Unpack[AskOptions]) -> AsyncGenerator[str, None]:
        """`Client.ask_stream`."""
        return self.stream(lambda client: client.ask_stream(question, **options))

    async def prepare(self, *files: str, output: str, **options: Any) -> Prepared:
        """`Client.prepare`, with the same options."""
        return await self.run(self.client.prepare, *files, output=output, **options)

    async def preview(self, file: str, **options: Any) -> Preview:
        """`Client.preview`, with the same options."""
        return await self.run(self.client.preview, file, **options)

    def validate(self, *files: str) -> AsyncGenerator[Finding, None]:
        """`Client.validate`."""
        return self.stream(lambda client: client.validate(*files))

    @property
    def client(self) -> Client:
        """The underlying `Client`. Raises RuntimeError before it is connected."""
        if self._client is None:
            raise RuntimeError("await the AsyncClient, or use it in an `async with` block")
        return self._client

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(call, *args, **kwargs))

    async def stream(self, make: Callable[[Client], Iterator[T]]) -> AsyncGenerator[T, None]:
        """Yield the items of a blocking iterator, over a connection of its own.

        Closing that connection wakes a thread that waits for the next item, so that a task can be
        cancelled at any time.
        """
        client = await self.run(self._connect)
        try:
            items: Iterator[Any] = make(client)
            while (item := await self.run(next, items, _END)) is not _END:
                yield cast(T, item)
        finally:
            client.close()


def _in_thread(
    method: Callable[Concatenate[Job, P], T],
) -> Callable[Concatenate[AsyncJob, P], Coroutine[Any, Any, T]]:
    """Return a method of AsyncJob that runs `method` of its Job in a thread."""

    @wraps(method)
    async def call(self: AsyncJob, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._client.run(method, self._job, *args, **kwargs)

    return call


class AsyncJob:
    """`Job` for asyncio."""

    def __init__(self, client: AsyncClient, job: Job) -> None:
        self._client, self._job = client, job
        self.id = job.id

    def __repr__(self) -> str:
        return f"AsyncJob({self.id}, {self.state})"

    async def refresh(self) -> AsyncJob:
        """`Job.refresh`."""
        await self._client.run(self._job.refresh)
        return self

    @property
    def spec(self) -> JobSpec:
        """`Job.spec`."""
        return self._job.spec

    @property
    def state(self) -> JobState | None:
        """`Job.state`."""
        return self._job.state

    @property
    def plan(self) -> Plan | None:
        """`Job.plan`."""
        return self._job.plan

    @property
    def status(self) -> dict[str, Any]:
        """`Job.status`."""
        return self._job.status

    metrics = _in_thread(Job.metrics)
    best = _in_thread(Job.best)
    report = _in_thread(Job.report)
    export = _in_thread(Job.export)
    evaluate = _in_thread(Job.evaluate)
    pause = _in_thread(Job.pause)
    resume = _in_thread(Job.resume)
    cancel = _in_thread(Job.cancel)
    retry = _in_thread(Job.retry)
    move = _in_thread(Job.move)
    remove = _in_thread(Job.remove)

    async def events(self, after_seq: int = 0) -> AsyncGenerator[Event, None]:
        """`Job.events`."""
        async for event in self._client.stream(lambda c: c.job(self.id).events(after_seq)):
            yield event

    async def steps(self) -> AsyncGenerator[StepDone, None]:
        """`Job.steps`."""
        async for event in self.events():
            if isinstance(event.body, StepDone):
                yield event.body

    async def evaluations(self) -> AsyncGenerator[Evaluated, None]:
        """`Job.evaluations`."""
        async for event in self.events():
            if isinstance(event.body, Evaluated):
                yield event.body

    async def wait(self) -> JobState:
        """`Job.wait`."""
        async for _event in self.events(self._job.last_seq):
            pass
        state = (await self.refresh()).state
        assert state is not None
        return state

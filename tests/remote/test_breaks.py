"""Links that break at random moments of upload, watch, ask and fetch: nothing lost, twice or half.

SAFETRAIN_BREAKS: how many links break in all. SAFETRAIN_UPLOAD_MB: the size of the large upload.
"""

from __future__ import annotations

import filecmp
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from safetrain.asking import ask
from safetrain.connection import Daemon
from safetrain.follower import Follower
from safetrain.remote import upload
from safetrain.remote.fetch import fetch
from safetrain.remote.job_spec import for_host
from safetrain.remote.upload import Progress, send
from safetrain_proto.v1.answers_pb2 import AskRequest, Message
from safetrain_proto.v1.files_pb2 import Held
from safetrain_proto.v1.jobs_pb2 import JobRequest, SubmitRequest
from safetrain_shared.errors import InvalidInput
from safetrain_shared.jobs import JobSpec
from safetrain_shared.wire import spec_to_wire
from safetraind.storage.manifest import write_manifest
from tests.harness import wait_for
from tests.remote.studio import Studio
from tests.tiny import make_chat_data, make_tiny_model

BREAKS = int(os.environ.get("SAFETRAIN_BREAKS", "4"))
UPLOAD_BYTES = int(os.environ.get("SAFETRAIN_UPLOAD_MB", "24")) << 20
_SENT_BYTES = 8 << 20  # of the files that go there and back while links break
_EVENTS = 40  # that one watch waits for
_TOKENS = 60
_FLIGHT_BYTES = 16 << 20  # at most so much is on the way when a link breaks
_MEMORY_BYTES = 64 << 20  # by which the daemon may grow while it takes a file
_SETTINGS = {"num_epochs": 1000, "batch_size": 2, "max_seq_length": 64, "lora_layers": 1}


class Training:
    """A real training on the host, which steps, is watched and is asked while links break."""

    def __init__(self, studio: Studio, folder: Path) -> None:
        self.folder = folder
        model = make_tiny_model(studio.home / "models" / "demo", layers=1)
        write_manifest(model, {"name": "demo"})
        train, valid = make_chat_data(folder / "data", 200, 2)  # few ends of epochs, which save
        settings = {**_SETTINGS, "log_steps": 1, "eval_steps": 10**6, "save_steps": 10**6}
        spec = JobSpec("demo", str(train), str(valid), str(folder / "out"), settings=settings)
        self.daemon = Daemon(host="studio")
        request = SubmitRequest(spec=for_host(self.daemon, spec_to_wire(spec), lambda _: None))
        self.job = self.daemon.call(self.daemon.jobs.Submit, request, seconds=120).job
        self.results = Path(self.job.spec.output)
        large = self.results / f"tensorboard/job-{self.job.id}/events.out.tfevents.1"
        wait_for(lambda: self.step() > 2, 120, "the training has begun")
        large.parent.mkdir(parents=True)
        large.write_bytes(random.Random(0).randbytes(_SENT_BYTES))
        self.large = large
        self.seqs: list[int] = []
        self.answer = self._asked()
        self.runs = 0

    def step(self) -> int:
        """How far it is."""
        request = JobRequest(id=self.job.id)
        return self.daemon.call(self.daemon.jobs.Get, request, again=True).step

    def upload(self) -> None:
        """Sends a file that the host has not seen, and compares."""
        self.runs += 1
        file = self.folder / "sent.jsonl"
        file.write_bytes(random.Random(self.runs).randbytes(_SENT_BYTES))
        with counted() as (held, sent):
            path = Path(send(self.daemon, str(file)))
        assert path.read_bytes() == file.read_bytes()
        assert held == sorted(held)  # it never had to begin anew
        assert sent[0] - _SENT_BYTES <= _FLIGHT_BYTES * (len(held) - 1)
        path.unlink()

    def watch(self) -> None:
        """Waits for some more events: each comes once, in order, from the first on."""
        last = len(self.seqs)
        assert len(self.seqs) == (self.seqs[-1] if self.seqs else 0)
        for events, _ in Follower(self.daemon, self.job.id, last).batches():
            self.seqs += [event.seq for event in events]
            if len(self.seqs) >= last + _EVENTS:
                break
        assert self.seqs[last:] == list(range(last + 1, len(self.seqs) + 1))

    def ask(self) -> None:
        """Asks the base model, whose answer is the same at every step."""
        assert self._asked() == self.answer

    def _asked(self) -> str:
        question = [Message(role="user", content="Quem joga?")]
        request = AskRequest(messages=question, job_id=self.job.id, base=True, max_tokens=_TOKENS)
        events = list(ask(self.daemon, request))
        assert [event.WhichOneof("body") for event in events].count("done") == 1
        return "".join(event.text for event in events)

    def fetch(self) -> None:
        """Brings the results: each is whole, and nothing else lies there."""
        self.runs += 1
        folder = self.folder / f"here-{self.runs}"
        changed = fetch(self.daemon, self.job.id, folder)
        there = folder / self.large.relative_to(self.results)
        assert there in changed and there.read_bytes() == self.large.read_bytes()
        assert sorted(changed) == sorted(path for path in folder.rglob("*") if path.is_file())
        there.unlink()


@contextmanager
def counted() -> Iterator[tuple[list[int], list[int]]]:
    """What the host held before each attempt to send, and the bytes that were sent in all."""
    put, held, sent = upload._put, list[int](), [0]

    def counting(daemon: Daemon, file: upload._File, start: int, progress: Progress) -> Held:
        held.append(start)
        at = [start]

        def noted(share: float) -> None:
            position = round(share * file.offer.size)
            sent[0] += position - at[0]
            at[0] = position
            progress(share)

        return put(daemon, file, start, noted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upload, "_put", counting)
        yield held, sent


@pytest.fixture(scope="module")
def training(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    found = Training(studio, tmp_path_factory.mktemp("training"))
    yield found
    found.daemon.close()


def broken_at(studio: Studio, seconds: float, act: Callable[[], None]) -> bool:
    """Run `act`, break the link after so many seconds, and return whether that was in its midst."""
    over = threading.Event()
    broke = []

    def cut() -> None:
        if not over.wait(seconds):
            broke.append(studio.cut())

    breaker = threading.Thread(target=cut)
    breaker.start()
    try:
        act()
    finally:
        over.set()
        breaker.join()
    return bool(broke and broke[0])


def test_links_that_break_at_random_moments_lose_double_and_halve_nothing(
    studio: Studio, training: Training
) -> None:
    chance = random.Random(BREAKS)
    acts = [training.upload, training.watch, training.ask, training.fetch]
    lasting = {}
    for act in acts:
        began = time.monotonic()
        act()
        lasting[act] = time.monotonic() - began
    broken = dict.fromkeys((act.__name__ for act in acts), 0)
    for number in range(BREAKS):
        act = acts[number % len(acts)]
        while not broken_at(studio, chance.uniform(0, lasting[act]), act):
            pass  # it was over before: another moment
        broken[act.__name__] += 1
    print(f"\nlinks broken: {broken}; events seen once and in order: {len(training.seqs)}")
    assert sum(broken.values()) == BREAKS


def test_a_large_upload_goes_on_after_breaks_and_the_daemon_does_not_grow(
    studio: Studio, training: Training, tmp_path: Path
) -> None:
    file, breaker = _random_file(tmp_path / "large.jsonl"), Breaker(studio, 0.3, 0.7)
    server = next(p for p in studio.daemon().processes() if p.cmdline()[-1] == "run")
    before = _peak_bytes(server)
    with counted() as (held, sent):
        path = Path(send(training.daemon, str(file), breaker))
    grown, again = _peak_bytes(server) - before, sent[0] - UPLOAD_BYTES
    print(f"\n{UPLOAD_BYTES >> 20} MiB; held before each attempt: {held}; on the way when a link")
    print(f"broke, so sent again: {again} bytes; the daemon grew by {grown >> 20} MiB")
    assert len(held) == 3 and held == sorted(held)
    assert 0 <= again <= 2 * _FLIGHT_BYTES and grown <= _MEMORY_BYTES
    assert path.stat().st_size == UPLOAD_BYTES and filecmp.cmp(path, file, shallow=False)
    with counted() as (held, sent):
        assert send(training.daemon, str(file)) == str(path)
    assert sent == [0] and held == []
    path.unlink()


def test_a_byte_that_went_wrong_on_the_way_is_found_at_the_end(
    studio: Studio, training: Training, tmp_path: Path
) -> None:
    file = _random_file(tmp_path / "large.jsonl")
    offer = upload._offered(file).offer
    partial = studio.home / "uploads" / offer.sha256 / ".partial"

    def spoil() -> None:
        with partial.open("r+b") as part:
            part.seek(1000)
            wrong = part.read(1)[0] ^ 1
            part.seek(1000)
            part.write(bytes([wrong]))

    breaker = Breaker(studio, 0.5, then=spoil)
    with counted() as (held, _sent), pytest.raises(InvalidInput) as refused:
        send(training.daemon, str(file), breaker)
    assert refused.value.code == "files.damaged" and len(held) == 2 and held[1] > 1000
    assert training.daemon.call(training.daemon.files.Look, offer) == Held()
    assert not partial.exists()


class Breaker:
    """A progress of an upload that breaks the link when each share of the file was sent."""

    def __init__(self, studio: Studio, *shares: float, then: Callable[[], None] = bool) -> None:
        self._studio, self._shares, self._then = studio, list(shares), then

    def __call__(self, share: float) -> None:
        if self._shares and share > self._shares[0]:
            self._shares.pop(0)
            self._studio.cut()
            self._then()


def _random_file(path: Path) -> Path:
    chance = random.Random(UPLOAD_BYTES)
    with path.open("wb") as file:
        for _ in range(UPLOAD_BYTES >> 20):
            file.write(chance.randbytes(1 << 20))
    return path


def _peak_bytes(process: psutil.Process) -> int:
    """The largest resident set of the process so far; where that is not told, the present one."""
    if not psutil.LINUX:
        return int(process.memory_info().rss)
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10

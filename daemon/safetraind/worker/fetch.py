"""The worker role `fetch`: downloads a hub repository, without the GPU lease."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from safetraind.worker.exchange import Tell, answer, read_request
from safetraind.worker.hub import bytes_in_cache, bytes_to_download, snapshot
from safetraind.worker_messages.fetch_messages import FETCH, Fetched, FetchLine, FetchRequest

_POLL_SECONDS = 0.5


def main(arguments: list[str]) -> int:
    """Download; an error of ours is a result, and the exit code still 0."""
    request = read_request(arguments[0], FETCH.name, FetchRequest)
    answer(arguments[0], lambda tell: _fetch(request, tell))
    return 0


def _fetch(request: FetchRequest, tell: Tell) -> Fetched:
    repository = request.repository
    needed = bytes_to_download(repository)
    tell(FetchLine(bytes=needed))
    if request.dry_run:
        return Fetched("")
    with _reporting_progress(repository, needed, tell):
        folder = snapshot(repository)
    tell(FetchLine(done=1.0))
    return Fetched(str(folder))


@contextmanager
def _reporting_progress(repository: str, needed: int, tell: Tell) -> Iterator[None]:
    """Report the share that has arrived, by the size of the cache, inside this context."""
    before, over = bytes_in_cache(repository), threading.Event()

    def poll() -> None:
        while needed and not over.wait(_POLL_SECONDS):
            arrived = bytes_in_cache(repository) - before
            tell(FetchLine(done=min(1.0, max(0, arrived) / needed)))

    poller = threading.Thread(target=poll, daemon=True)
    poller.start()
    try:
        yield
    finally:
        over.set()
        poller.join()

"""The role `serve`: keeps a model loaded and answers questions until it is idle or stopped.

`worker_messages.serve_messages` has its request. A question may name another model or adapter,
whether to trust the model's code, and how long to keep the model loaded after it.
"""

from __future__ import annotations

import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from safetrain_shared.errors import Blocked, SafetrainError, error_to_dict
from safetrain_shared.paths import RunFolder
from safetrain_shared.questions import AnswerReply, AnswerSource
from safetraind import host
from safetraind.storage.manifest import sha256
from safetraind.worker.exchange import read_request
from safetraind.worker.inference.context_limit import longest, shape_of
from safetraind.worker.inference.prompt_cache import Conversation
from safetraind.worker.inference.question_socket import Asker, QuestionServer, answer
from safetraind.worker.loading import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    LoadedModel,
    attach_adapter,
    detach_adapter,
    item_bytes,
    load,
)
from safetraind.worker.time_limit import TimeLimitReached, broken_off
from safetraind.worker_messages.serve_messages import ServeRequest

FIRST_SECONDS = 30.0
"""The least time to wait for the first question, whatever `keep_alive` says."""

Version = tuple[tuple[int, int, int], ...]

_MEMORY_SHARE = 0.9
"""The share of free memory, and of a GPU's recommended working set, that an answer may take."""


def main(arguments: Sequence[str]) -> int:
    """Serve in the run folder given as the only argument. Return 0 when idle or on SIGTERM."""
    run = RunFolder(Path(arguments[0]))
    request = read_request(arguments[0], "serve", ServeRequest)
    questions = QuestionServer(run.socket)
    server = Server(request, questions)
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    try:
        server.run()
    finally:
        questions.close()
    return 0


@dataclass(frozen=True, slots=True)
class Attached:
    """The adapter that is attached: its folder (empty: none), its files' state and hash."""

    folder: str = ""
    version: Version = ()
    sha256: str = ""


_NO_ADAPTER = Attached()


class Server:
    """The loaded model and the loop that answers questions with it."""

    def __init__(self, request: ServeRequest, questions: QuestionServer) -> None:
        self._request = request
        self._questions = questions
        self._stopping = False
        self._keep_alive = request.keep_alive
        self._loaded: LoadedModel | None = None
        self._model = ""
        self._adapter = _NO_ADAPTER
        self._context = 0
        self._conversations: dict[bool, Conversation] = {}

    def stop(self) -> None:
        """Stop after the current token. Safe in a signal handler."""
        self._stopping = True
        self._questions.wake()

    def run(self) -> None:
        """Answer questions in order until none comes for `keep_alive` seconds, or `stop`."""
        timeout = max(self._keep_alive, FIRST_SECONDS)
        while not self._stopping and (asker := self._questions.take(timeout)):
            try:
                self._answer(asker)
            finally:
                self._questions.done_with(asker)
            timeout = self._keep_alive

    def _answer(self, asker: Asker) -> None:
        question = asker.question
        if question.keep_alive is not None:
            self._keep_alive = question.keep_alive
        model = question.model or self._request.model
        adapter = question.adapter or self._request.adapter
        try:
            if model != self._model:
                asker.send(AnswerReply(waiting="loading"))
                most = host.gather().memory_usable
                with broken_off(lambda: self._stopping or asker.gone or _is_over(most, model)):
                    self._load(model, question.trust_remote_code)
            if not question.base:
                self._set_adapter(adapter)
        except TimeLimitReached:  # nobody waits for it any more
            return
        except SafetrainError as error:
            asker.send(AnswerReply(error=error_to_dict(error)))
            return
        assert self._loaded is not None
        adapted = bool(self._adapter.folder) and not question.base
        shown = self._adapter if adapted else _NO_ADAPTER
        answer(
            asker,
            self._loaded,
            AnswerSource(model, shown.folder, adapter_sha256=shown.sha256),
            context=self._context,
            conversation=self._conversation(adapted),
            stop=lambda: self._stopping,
        )

    def _conversation(self, adapted: bool) -> Conversation:
        """Return the last conversation with the same weights, else a new one. Only one is kept."""
        if adapted not in self._conversations:
            self._conversations = {adapted: Conversation()}
        return self._conversations[adapted]

    def _load(self, model: str, trust: bool) -> None:
        self._loaded, self._model, self._conversations = None, "", {}
        self._adapter = _NO_ADAPTER
        mx.clear_cache()  # frees the old model's memory before the new one needs it
        self._loaded = load(
            model,
            dequantize=self._request.dequantize,
            trust_remote_code=trust,
        )
        shape = shape_of(self._loaded.config, item_bytes(self._loaded.model))
        self._context = longest(shape, _available_bytes(), self._request.context)
        self._model = model

    def _set_adapter(self, folder: str) -> None:
        """Attach the adapter in `folder` (empty: none), unless those files are attached already."""
        assert self._loaded is not None
        version = _version(Path(folder)) if folder else ()
        if (folder, version) == (self._adapter.folder, self._adapter.version):
            return
        self._conversations = {}
        detach_adapter(self._loaded.model)
        self._adapter = _NO_ADAPTER
        if folder:
            self._adapter = _attached(self._loaded, Path(folder))


def _is_over(most: int, model: str) -> bool:
    """Raise Blocked once this process has taken `most` bytes; else return False.

    A folder may claim a thousand million layers, which are made one by one.
    """
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken *= 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    if 0 < most < taken:
        raise Blocked("ask.too_large", path=model)
    return False


def _attached(loaded: LoadedModel, folder: Path) -> Attached:
    """Attach the adapter, and do so again if its files were replaced meanwhile."""
    while True:
        version = _version(folder)
        attach_adapter(loaded.model, folder)
        digest = sha256(folder / ADAPTER_WEIGHTS)
        if _version(folder) == version:
            return Attached(str(folder), version, digest)
        detach_adapter(loaded.model)


def _version(folder: Path) -> Version:
    """Return an identity of the state of an adapter's files.

    Each is identified by its inode, size in bytes and time of change in nanoseconds; missing files
    are left out.
    """
    files = [folder / name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)]
    found = [file.stat() for file in files if file.is_file()]
    return tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in found)


def _available_bytes() -> int:
    """Return the memory in bytes that an answer may take, with the model already loaded."""
    available = int(_MEMORY_SHARE * host.gather().memory_available)
    recommended = int(mx.device_info().get("max_recommended_working_set_size", 0))
    if recommended:
        available = min(available, int(_MEMORY_SHARE * recommended) - mx.get_active_memory())
    return available

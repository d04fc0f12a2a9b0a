"""The Unix socket on which a training or serving worker takes questions and streams answers.

Each connection has one question. The client sends a `Question` and reads one `AnswerReply` a line,
until `done` or `error`. It keeps its side open until then: closing or half-closing it cancels the
question. Threads accept, read and queue. MLX is used by the main thread alone, which takes a
question when it can (a trainer: between two steps) and answers it at once. Questions and answers
are not logged.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx

from safetrain_shared.codec import to_plain
from safetrain_shared.errors import Broken, Busy, InvalidInput, SafetrainError, error_to_dict
from safetrain_shared.questions import (
    CONTEXT_TOKENS,
    AnswerDone,
    AnswerReply,
    AnswerSource,
    Question,
)
from safetraind.worker.inference.generation import (
    encode_prompt,
    generate,
    question_from_json,
)
from safetraind.worker.inference.prompt_cache import Conversation
from safetraind.worker.loading import LoadedModel, adapter_off, evaluating

MAX_REQUEST_BYTES = 1 << 20
MAX_CONNECTIONS = 16
"""Clients served or waiting; as many more wait in the kernel's queue."""

READ_SECONDS = 10.0
"""The time that a client has to send its question."""

SEND_SECONDS = 2.0
"""A client that does not read for this long while an answer is sent is dropped."""


class Asker:
    """A connected client and its question."""

    def __init__(self, connection: socket.socket, question: Question) -> None:
        self.question = question
        self._connection = connection
        self._lost = False

    @property
    def gone(self) -> bool:
        """Whether the client has closed its side."""
        try:
            return self._connection.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def send(self, reply: AnswerReply) -> bool:
        """Send one reply. Return False, from then on, if the client has gone or does not read."""
        self._lost = self._lost or not _send(self._connection, reply)
        return not self._lost

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class QuestionServer:
    """Accepts questions on a Unix socket, in threads, and queues them for the main thread."""

    def __init__(self, path: Path) -> None:
        """Listen at `path` (`RunFolder.socket`), replacing the socket of an earlier worker."""
        self._path = path
        self._listener = _listen(path)
        self._asked: queue.SimpleQueue[Asker | None] = queue.SimpleQueue()
        self._places = threading.Semaphore(MAX_CONNECTIONS)
        self._closing = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, name="questions", daemon=True)
        self._thread.start()

    def take(self, timeout: float = 0.0) -> Asker | None:
        """Return the next asker that is still connected; None if none comes in `timeout` seconds.

        With no question waiting and no timeout this takes about a microsecond. The caller answers
        the asker and calls `done_with`.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                asker = self._asked.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return None
            if asker is None or not asker.gone:
                return asker
            self.done_with(asker)

    def done_with(self, asker: Asker) -> None:
        """Close the connection, which makes a place free for another client."""
        asker.close()
        self._places.release()

    def wake(self) -> None:
        """Make a waiting `take` return None. Safe in a signal handler."""
        self._asked.put(None)

    def close(self) -> None:
        """Stop listening, and send Busy to the clients that still wait."""
        with self._lock:  # after this no question is queued any more
            self._closing = True
        self._places.release()  # ends a wait for a place
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as waker:
            waker.connect(str(self._path))  # ends a wait in accept()
            self._thread.join()
        self._listener.close()
        self._path.unlink(missing_ok=True)
        while not self._asked.empty():
            if asker := self.take():
                self._refuse(asker)

    def _accept(self) -> None:
        """Accept connections while there is a place; later ones wait in the kernel's queue."""
        while self._places.acquire() and not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # out of descriptors: wait until some are closed
                self._places.release()
                time.sleep(0.1)
                continue
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        """Read the question of one connection and queue it."""
        try:
            asker = Asker(connection, question_from_json(_read_object(connection)))
        except (SafetrainError, OSError) as error:
            if isinstance(error, SafetrainError):
                _send(connection, _error(error))
            connection.close()
            self._places.release()
            return
        with self._lock:
            if self._closing:
                self._refuse(asker)
            else:
                asker.send(AnswerReply(waiting="queue"))
                self._asked.put(asker)

    def _refuse(self, asker: Asker) -> None:
        asker.send(_error(Busy("ask.worker_ended")))
        self.done_with(asker)


def answer(
    asker: Asker,
    loaded: LoadedModel,
    source: AnswerSource,
    *,
    context: int = CONTEXT_TOKENS,
    conversation: Conversation | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Stream an answer to `asker`, and leave the model unchanged.

    `source` is sent first. `context` limits prompt and answer together, in tokens: a longer prompt
    is refused, a longer answer cut. `conversation` (with the same weights) provides a key-value
    cache. `stop` ends the answer early. Dropout and, for a `base` question, the adapter are off
    meanwhile. MLX's global random state does not change.

    Raises RuntimeError as MLX does when memory runs out; the process must end then. Any other error
    is only sent to the asker.
    """
    try:
        _answer(asker, loaded, source, context, conversation, stop)
    except SafetrainError as error:
        asker.send(_error(error))
    except RuntimeError:
        asker.send(_error(Broken("ask.failed", reason="RuntimeError")))
        raise
    except Exception as error:
        asker.send(_error(Broken("ask.failed", reason=type(error).__name__)))
    finally:
        mx.clear_cache()


def _answer(
    asker: Asker,
    loaded: LoadedModel,
    source: AnswerSource,
    context: int,
    conversation: Conversation | None,
    stop: Callable[[], bool],
) -> None:
    question = asker.question
    prompt = encode_prompt(loaded.tokenizer, question.messages, question.thinking)
    if len(prompt) >= context:
        raise InvalidInput("ask.prompt_too_long", tokens=len(prompt), limit=max(0, context - 1))
    room = min(question.max_tokens, context - len(prompt))
    question = dataclasses.replace(question, max_tokens=room)
    adapter = adapter_off if question.base else contextlib.nullcontext
    with evaluating(loaded.model), adapter(loaded.model):
        connected = asker.send(AnswerReply(source=source))
        pieces = generate(
            loaded.model,
            loaded.tokenizer,
            prompt,
            question,
            conversation=conversation,
            stop=lambda: stop() or not connected or asker.gone,
        )
        for piece in pieces:
            if isinstance(piece, AnswerDone):
                asker.send(AnswerReply(done=piece))
            else:
                connected = asker.send(AnswerReply(text=piece))
        mx.synchronize()  # the token that mlx-lm computes ahead must not overlap a training step


def _listen(path: Path) -> socket.socket:
    """Bind a socket that only this user may connect to. The caller protects its folder.

    The socket is renamed into place once it listens, so that a client that finds it can connect.
    """
    path.unlink(missing_ok=True)
    aside = path.with_name(f"~{path.name[1:]}")  # of the same length, which an address limits
    aside.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        listener.bind(str(aside))
    finally:
        os.umask(mask)
    listener.listen(MAX_CONNECTIONS)
    aside.rename(path)
    return listener


def _read_object(connection: socket.socket) -> Any:
    """Return the JSON value on the first line. Raises InvalidInput, or OSError on a timeout."""
    deadline = time.monotonic() + READ_SECONDS
    received = bytearray()
    while b"\n" not in received:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        part = connection.recv(1 << 16)
        if not part:
            raise ConnectionResetError
        received += part
        if len(received) > MAX_REQUEST_BYTES:
            raise InvalidInput("message.too_large", size=len(received), limit=MAX_REQUEST_BYTES)
    try:
        return json.loads(received.split(b"\n", 1)[0])
    except (ValueError, RecursionError) as error:
        raise InvalidInput("ask.malformed", field="JSON") from error


def _send(connection: socket.socket, reply: AnswerReply) -> bool:
    plain = {name: value for name, value in to_plain(reply).items() if value is not None}
    line = json.dumps(plain, ensure_ascii=False, separators=(",", ":")) + "\n"
    try:
        connection.settimeout(SEND_SECONDS)
        connection.sendall(line.encode(errors="replace"))
        connection.setblocking(False)
    except OSError:
        return False
    return True


def _error(error: SafetrainError) -> AnswerReply:
    return AnswerReply(error=error_to_dict(error))

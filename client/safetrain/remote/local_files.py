"""Files of this machine that a command names for the daemon of another: sent, and shown as here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.message import Message

from safetrain.connection import Daemon
from safetrain.remote.upload import send, send_folder

Progress = Callable[[float], None]  # takes the share of a file that is there, 0 to 1
M = TypeVar("M", bound=Message)
OUTPUTS = "safetrain"  # folder in the user's home there, for outputs named by a relative path


class LocalFiles:
    """The files that one command sent. For the daemon of this machine every path stays as it is."""

    def __init__(self, daemon: Daemon, progress: Progress = lambda _: None) -> None:
        self._daemon = daemon
        self._progress = progress
        self._sent: dict[str, str] = {}  # path here, by the path there

    def there(self, path: str) -> str:
        """Return the file's path for the daemon. Raises what `send` raises."""
        if not self._daemon.host or not path:
            return path
        found = send(self._daemon, path, self._progress)
        self._sent[found] = path
        return found

    def model_there(self, path: str) -> str:
        """Return the path for the daemon of a model's folder, or an adapter's file, that is here.

        Anything else, such as a name or a path of the host, is returned as it is. Raises
        InvalidInput for an empty folder, and what `send` raises.
        """
        if not self._daemon.host or not is_here(path):
            return path
        if Path(path).is_file():
            return self.there(path)
        found = send_folder(self._daemon, path, self._progress)
        self._sent[found] = path
        return found

    def shown(self, message: M) -> M:
        """Return the daemon's message with the paths of sent files as they are called here."""
        if self._sent:
            self._rename(message)
        return message

    def _rename(self, message: Message) -> None:
        for field, value in message.ListFields():
            if field.type == field.TYPE_MESSAGE:
                for each in _messages(value):
                    self._rename(each)
            elif isinstance(value, str):
                setattr(message, field.name, self._local(value))

    def _local(self, text: str) -> str:
        for there, here in self._sent.items():
            text = text.replace(there, here)
        return text


def is_here(path: str) -> bool:
    """Whether this is the absolute path of something on this machine."""
    return Path(path).is_absolute() and Path(path).exists()


def _messages(value: Any) -> list[Message]:
    """Return the messages in a field's value: itself, a list's, or a map's values."""
    if isinstance(value, Message):
        return [value]
    values = value.values() if hasattr(value, "values") else value
    return [each for each in values if isinstance(each, Message)]


def output_there(daemon: Daemon, path: str) -> str:
    """Return the path of an output folder on the daemon's machine; on this one, `path` itself.

    A folder below the current one becomes one of the same name in ~/safetrain there; any other is
    taken as a path of the host. Raises Unreachable.
    """
    below = os.path.relpath(path)
    if not daemon.host or below.startswith(".."):
        return path
    return os.path.normpath(f"{daemon.remote_folder}/{OUTPUTS}/{below}")

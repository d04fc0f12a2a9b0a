"""Files of this machine that a command names for the daemon of another: sent, and shown as here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.message import Message

from safetrain.connection import Daemon
from safetrain.remote.upload import send
from safetrain_shared.errors import InvalidInput

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

    def folder_there(self, path: str) -> str:
        """Return a folder's path, which is taken as one of the host.

        Raises InvalidInput for a folder that exists here: folders are not sent.
        """
        if self._daemon.host and Path(path).is_absolute() and Path(path).exists():
            raise InvalidInput("host.folder_here", path=path, host=self._daemon.host)
        return path

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

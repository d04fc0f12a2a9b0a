"""Whether a daemon answers at the socket of a home."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from safetrain_shared.errors import NotAllowed
from safetrain_shared.paths import Home, trusted

Notify = Callable[[str], None]  # takes a sentence for the user


def answers(home: Home) -> bool:
    """Whether a process accepts connections at the home's socket. Raises NotAllowed."""
    path = home.socket
    try:
        trusted(path)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5)
            probe.connect(os.fspath(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError as error:
        raise NotAllowed("home.unwritable", path=str(path), reason=error.strerror) from error
    return True


def wait(home: Home, seconds: float) -> bool:
    """Wait until a daemon answers; False where none did within `seconds`."""
    deadline = time.monotonic() + seconds
    while not answers(home):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True

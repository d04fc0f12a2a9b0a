"""Runs the daemon's self-test as a subprocess and yields its messages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from safetrain.autostart import installed
from safetrain_shared.errors import Broken, Unreachable, error_from_dict


def selftest(*, thorough: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the self-test's messages: progress, findings, last {"done": {"passed", "machine"}}.

    Raises Unreachable where the daemon's part is not installed, the self-test's own error, and
    Broken where it ended without the last message.
    """
    if not installed():
        raise Unreachable("daemon.not_installed")
    command = [sys.executable, "-m", "safetraind.selftest", *(["--thorough"] if thorough else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        done = False
        for line in process.stdout:
            message = json.loads(line)
            if "error" in message:
                raise error_from_dict(message["error"])
            done = done or "done" in message
            yield message
        if not done:
            last = process.stderr.read().decode("utf-8", "replace").strip().splitlines()
            raise Broken("client.broken", reason=last[-1] if last else "selftest")

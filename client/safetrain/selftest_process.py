"""Runs the daemon's self-test in a process of its own and hands on what it says, line by line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from safetrain.autostart import installed
from safetrain_shared.errors import Broken, Unreachable, error_from_dict


def selftest(*, thorough: bool = False) -> Iterator[dict[str, Any]]:
    """What it is doing, its verdicts, last {"done": {"passed", "machine"}}.

    Raises Unreachable where the daemon's part is not installed, what the self-test refused with,
    and Broken where it ended without a conclusion.
    """
    if not installed():
        raise Unreachable("daemon.not_installed")
    command = [sys.executable, "-m", "safetraind.selftest", *(["--thorough"] if thorough else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        done = False
        for line in process.stdout:
            said = json.loads(line)
            if "error" in said:
                raise error_from_dict(said["error"])
            done = done or "done" in said
            yield said
        if not done:
            last = process.stderr.read().decode("utf-8", "replace").strip().splitlines()
            raise Broken("client.broken", reason=last[-1] if last else "selftest")

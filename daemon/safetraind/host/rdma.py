"""The devices by which this machine reads and writes the memory of others, over Thunderbolt."""

from __future__ import annotations

import subprocess

_SECONDS = 10.0


def rdma_devices() -> frozenset[str]:
    """Return their names as `ibv_devices` lists them, such as `rdma_en5`; none where there is no
    such program, or it fails.
    """
    try:
        done = subprocess.run(["ibv_devices"], capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return frozenset()
    firsts = (line.split()[0] for line in done.stdout.splitlines() if line.strip())
    return frozenset(name for name in firsts if name.startswith("rdma_"))

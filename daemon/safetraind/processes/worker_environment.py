"""The environment variables that libraries of a worker read when it starts."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from safetraind import host


def for_computing(environment: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of `environment` for a process that computes. Choices of the user stay."""
    found = dict(environment)
    if sys.platform == "darwin":  # against the watchdog of a GPU that also draws (mlx #3267)
        found.setdefault("AGX_RELAX_CDM_CTXSTORE_TIMEOUT", "1")
    blas, preloaded = host.find_openblas(), found.get("LD_PRELOAD", "")
    if blas and blas not in preloaded.split(":"):
        found["LD_PRELOAD"] = f"{preloaded}:{blas}".lstrip(":")
    return found

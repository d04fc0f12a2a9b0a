"""`make architectures`: tries every architecture of mlx-lm, each in a process of its own.

`python -m benchmarks.architectures [--skip WAY …] [NAME …]` tries all or the named ones, keeps what
was found in results.json, and writes the tables in docs/architectures.md and its Portuguese page.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks.architectures import tiny_configs
from benchmarks.architectures.table import kind, write_pages
from benchmarks.architectures.trial import WAYS

RESULTS = Path(__file__).with_name("results.json")
_SECONDS = 900  # g++ compiles each architecture's operations the first time
_BYTES = 12 << 30  # of address space


def main() -> int:
    """Tries, tells each result at once, and fails where an architecture crashed or was wrong."""
    parser = argparse.ArgumentParser(prog="make architectures", description=__doc__)
    parser.add_argument("--skip", action="append", default=[], choices=list(WAYS))
    parser.add_argument("names", nargs="*")
    asked = parser.parse_args()
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    ways = [way for way in WAYS if way not in asked.skip]
    for name in asked.names or [n for n in tiny_configs.names() if n not in no_architectures()]:
        began = time.monotonic()
        found = tried(name, ways)
        bad = {way: said for way, said in found.items() if said}
        print(f"{name:24}{time.monotonic() - began:6.0f} s  {bad or 'all ways'}", flush=True)
        kept[name] = {**kept.get(name, {}), **found}
        kept = {"versions": {p: version(p) for p in ("mlx", "mlx-lm")}, **kept}
        _keep(kept)
    write_pages(kept)
    return int(any(kind(ways) == "bad" for name, ways in kept.items() if name != "versions"))


def _keep(found: dict[str, dict[str, str]]) -> None:
    """Writes the results, a line for each architecture."""
    lines = (f" {json.dumps(n)}: {json.dumps(w, sort_keys=True)}" for n, w in sorted(found.items()))
    RESULTS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def no_architectures() -> set[str]:
    """Modules of mlx_lm.models that only serve others."""
    parts = "activations base bitlinear_layers cache gated_delta mla pipeline rope_utils ssm"
    return {*parts.split(), "switch_layers"}


def tried(name: str, ways: list[str]) -> dict[str, str]:
    """What each way came to: empty, or a sentence. A process that died is a crash of all."""
    command = [sys.executable, "-m", "benchmarks.architectures.trial", name, *ways]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, preexec_fn=_limit
        )
    except subprocess.TimeoutExpired:
        return {"load": f"crashed: not done after {_SECONDS} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"load": f"crashed: the process ended with {done.returncode}"}
    found: dict[str, str] = json.loads(lines[-1])
    return found


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))


if __name__ == "__main__":
    sys.exit(main())

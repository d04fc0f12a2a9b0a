"""`make bench-prepare`: a file larger than memory, prepared; time against a bare loop, and memory.

Ratio: the processor time of the worker over that of a loop which reads the file line by line and
writes the lines again. Memory: the worker's highest footprint at an eighth of the size and at the
whole size. MEGABYTES (the environment) sets the size; the files go to a temporary folder.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MEGABYTES = int(os.environ.get("MEGABYTES", "1000"))
_WORDS = 20_000
_REPEATED = 0.02  # of the samples: half of them equal to one before, half nearly
_BARE = """
import sys
with open(sys.argv[1], "rb") as source, open(sys.argv[2], "wb") as target:
    for line in source:
        target.write(line)
"""


def make(path: Path, megabytes: int) -> int:
    """Write chats of about 600 bytes, `megabytes` of them; return how many samples."""
    rng = random.Random(0)
    words = [f"{rng.randrange(36**4):x}ção"[: rng.randint(3, 9)] for _ in range(_WORDS)]
    last: list[str] = rng.choices(words, k=80)
    count = 0
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < megabytes * 1_000_000:
            kind = rng.random()
            if kind > _REPEATED:
                last = rng.choices(words, k=80)
            elif kind > _REPEATED / 2:
                last = [*last[:-1], rng.choice(words)]
            turns = [
                {"role": "user", "content": " ".join(last[:20])},
                {"role": "assistant", "content": " ".join(last[20:])},
            ]
            file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
            count += 1
    return count


def processor(command: list[str]) -> tuple[float, float]:
    """Run a command; return its processor seconds and its wall seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.perf_counter() - began


def prepare(source: Path, folder: Path) -> tuple[float, float, int]:
    """Prepare `source` in a worker; return processor and wall seconds, and peak bytes."""
    run = folder / "run"
    run.mkdir()
    request = {"files": [str(source)], "output": str(folder / "out"), "seed": 0}
    request |= {"valid": 0.1, "questions": 0.0}
    (run / "prepare_request.json").write_text(json.dumps(request))
    code = (
        "import resource, sys; from safetraind.worker.prepare.prepare import main; "
        "main(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=open(sys.argv[2], 'w'))"
    )
    peak = folder / "peak"
    used, took = processor([sys.executable, "-c", code, str(run), str(peak)])
    result = json.loads((run / "probe.json").read_text())
    assert "error" not in result, result
    unit = 1 if sys.platform == "darwin" else 1024
    return used, took, int(peak.read_text()) * unit


def measure(megabytes: int) -> tuple[float, int]:
    """Print one row; return the ratio and the peak in bytes."""
    with tempfile.TemporaryDirectory(prefix="prepare-") as name:
        folder = Path(name)
        source = folder / "chats.jsonl"
        samples = make(source, megabytes)
        bare, bare_wall = processor(
            [sys.executable, "-c", _BARE, str(source), str(folder / "copy.jsonl")]
        )
        (folder / "copy.jsonl").unlink()
        used, took, peak = prepare(source, folder)
    print(
        f"{megabytes:6} MB  {samples:9,} samples  bare {bare:6.1f} s ({bare_wall:.1f} s wall)  "
        f"prepare {used:7.1f} s ({took:.1f} s wall)  ratio {used / bare:5.1f}  "
        f"peak {peak / 2**20:.0f} MiB",
        flush=True,
    )
    return used / bare, peak


def main() -> int:
    """Print both rows and what grew between them."""
    _ratio, small = measure(max(1, MEGABYTES // 8))
    ratio, large = measure(MEGABYTES)
    print(
        f"ratio {ratio:.1f}; memory grew by {(large - small) / 2**20:.0f} MiB over 7/8 of the file"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

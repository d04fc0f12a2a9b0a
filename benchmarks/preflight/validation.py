"""`validate` on a large file, against a bare `orjson` loop over its lines in the same run."""

from __future__ import annotations

import json
import random
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import orjson

from safetraind.worker.data.duplicate_index import Leakage
from safetraind.worker.data.scan import Scan

_VOCABULARY = 20_000
_VALID_SAMPLES = 1_000
_BLOCK = 20_000  # different lines; the file repeats them with a number in front


def report(folder: Path, size: int) -> None:
    """Makes the files, measures each way in a process of its own, and prints the shares."""
    train, valid = _files(folder, size)
    found = {}
    for way in ("bare", "formats", "everything"):
        command = [sys.executable, "-m", "benchmarks.preflight.validation", way, train, valid]
        found[way] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    bare = found["bare"]["cpu"]
    print(
        f"\nvalidate, {Path(train).stat().st_size / 1e9:.2f} GB, CPU time; bare orjson {bare:.1f} s"
    )
    for way, goal in (("formats", 0.50), ("everything", 0.12)):
        share, peak = bare / found[way]["cpu"], found[way]["peak"] / 1e6
        print(f"  {way:<11} {share:6.1%} of its speed (goal {goal:.0%}), peak {peak:.0f} MB")


def _files(folder: Path, size: int) -> tuple[str, str]:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgilmnoprstuvzáãçé", k=draw.randint(2, 9)))]
    words += [
        "".join(draw.choices("abcdefgilmnoprstuvzáãçé", k=draw.randint(2, 9)))
        for _ in range(_VOCABULARY)
    ]
    weights = [1 / (rank + 1) for rank in range(len(words))]

    def line(number: int) -> bytes:
        said = [" ".join(draw.choices(words, weights, k=k)) for k in (draw.randint(5, 30), 80)]
        messages = [
            {"role": "user", "content": f"{number} {said[0]}"},
            {"role": "assistant", "content": said[1]},
        ]
        return orjson.dumps({"messages": messages}) + b"\n"

    train, valid = folder / "large.jsonl", folder / "small.jsonl"
    valid.write_bytes(b"".join(line(n) for n in range(_VALID_SAMPLES)))
    block = [line(0) for _ in range(_BLOCK)]
    mark, number = b'"content":"0 ', 0
    with train.open("wb") as file:
        while file.tell() < size:
            for made in block:
                number += 1
                file.write(made.replace(mark, b'"content":"%d ' % number, 1))
    return str(train), str(valid)


def _measure(way: str, train: str, valid: str) -> None:
    leakage = Leakage()
    if way == "everything":
        for _ in Scan(valid, indexing=leakage).run():
            pass
        leakage.freeze()
    began = time.process_time()
    if way == "bare":
        with Path(train).open("rb") as file:
            for line in file:
                orjson.loads(line)
    else:
        full = way == "everything"
        for _ in Scan(train, leakage=leakage if full else None, compare=full).run():
            pass
    cpu = time.process_time() - began
    print(json.dumps({"cpu": cpu, "peak": _peak()}))


def _peak() -> int:
    """The most memory that this process had, in bytes; on Linux ru_maxrss would be its parent's
    where that is larger.
    """
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    assert found is not None
    return 1024 * int(found[1])


if __name__ == "__main__":
    _measure(*sys.argv[1:])

"""One rank that adds up vectors: `python sums.py FLOATS SUMS` prints the seconds of each sum."""

from __future__ import annotations

import json
import sys
import time

import mlx.core as mx


def main(floats: int, sums: int) -> None:
    """Sum `floats` float32 over the ranks, so many times; print the seconds as JSON."""
    group = mx.distributed.init(strict=True, backend="ring")
    vector = mx.ones(floats)
    mx.eval(vector)
    seconds = []
    for _ in range(sums):
        began = time.perf_counter()
        mx.eval(mx.distributed.all_sum(vector, group=group, stream=mx.cpu))
        seconds.append(time.perf_counter() - began)
    sys.stdout.write(json.dumps({"seconds": seconds}) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

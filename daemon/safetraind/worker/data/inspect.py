"""The worker role `inspect`: looks at training files, without the GPU lease.

Reads `inspect_request.json` in its run folder: {"train", "valid", "model", "mask_prompt",
"trust_remote_code"} for preflight, {"files": [...]} for `safetrain validate`. Writes JSON lines to
`inspect.jsonl`: progress, problems and summaries as they come, last {"done": true, ...}; the result
alone goes to `probe.json`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetrain_shared.codec import to_plain
from safetrain_shared.errors import ArgValue, SafetrainError
from safetrain_shared.findings import Finding, Status, finding_of
from safetrain_shared.packages import PACKAGES, Supported
from safetrain_shared.paths import RunFolder
from safetraind.storage.durable import write_json

if TYPE_CHECKING:  # they need packages of which this worker tells whether they are there
    from safetraind.worker.data.encode_chat import Encoder
    from safetraind.worker.data.scan import Progress, Scan

REQUEST = "inspect_request.json"
RESULT = "inspect.jsonl"
_PREVIEWED = 2  # samples of each file
Write = Callable[[dict[str, Any]], None]


def main(arguments: list[str]) -> int:
    """Inspects as the run folder asks. What is wrong with the files is a result, not a failure."""
    folder = Path(arguments[0])
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    with (folder / RESULT).open("w", encoding="utf-8") as file:

        def write(line: dict[str, Any]) -> None:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()

        result = _validate(request, write) if "files" in request else _preflight(request, write)
        write({"done": True, **result})
        write_json(RunFolder(folder).probe, result)
    return 0


def scan_files(paths: Sequence[str], write: Write) -> list[Scan | None]:
    """Scans files in the order given, and compares each with those before it.

    None stands for a file that cannot be read, whose finding was written.
    """
    from safetraind.worker.data.duplicate_index import Leakage
    from safetraind.worker.data.scan import Scan

    names = Counter(Path(path).name for path in paths)
    leakage, scans = Leakage(), list[Scan | None]()
    for place, path in enumerate(paths):
        scan = Scan(path, name=path if names[Path(path).name] > 1 else "")
        scan.leakage = leakage if place else None
        scan.indexing = leakage if place < len(paths) - 1 else None
        scans.append(scan if _run(scan, write) else None)
        leakage.freeze()
    return scans


def _run(scan: Scan, write: Write) -> bool:
    try:
        for found in scan.run():
            kind = "problem" if isinstance(found, Finding) else "progress"
            write({kind: _plain(found)})
    except SafetrainError as error:
        write({"problem": to_plain(_unreadable(error))})
        return False
    summary = {
        "path": scan.path,
        "lines": scan.lines,
        "samples": scan.samples,
        "problems": scan.errors + scan.warnings,
        "format": scan.format,
    }
    write({"summary": summary})
    return True


def _plain(found: Progress | Finding) -> dict[str, Any]:
    if isinstance(found, Finding):
        plain: dict[str, Any] = to_plain(found)
        return plain
    total = found.bytes_total
    return {"path": found.path, "bytes_done": found.bytes_done, "bytes_total": total}


def _unreadable(error: SafetrainError) -> Finding:
    found = finding_of(error)
    return dataclasses.replace(found, args={"line": 0, **found.args}, section="data")


def _validate(request: dict[str, Any], write: Write) -> dict[str, Any]:
    """From the smallest file to the largest, which then need not be kept to be compared with."""
    known: dict[object, str] = {}
    repeated = 0
    for path in request["files"]:
        first = known.setdefault(_identity(path), path)
        if first is not path:
            args: dict[str, ArgValue] = {"path": path, "line": 0, "other": first}
            write({"problem": to_plain(Finding("data.same_file", Status.WARNING, args=args))})
            repeated += 1
    scans = scan_files(sorted(known.values(), key=_size), write)
    errors = sum(1 if scan is None else scan.errors for scan in scans)
    return {"errors": errors, "warnings": repeated + sum(s.warnings for s in scans if s)}


def _preflight(request: dict[str, Any], write: Write) -> dict[str, Any]:
    packages = {package.module: _version(package) for package in PACKAGES}
    write({"packages": packages})
    try:
        valid, train = scan_files([request["valid"], request["train"]], write)
    except ImportError:
        return {"packages": packages}  # which tell why
    scans = (train, valid)
    facts = [None if scan is None else _facts(scan) for scan in scans]
    result: dict[str, Any] = {"train": facts[0], "valid": facts[1], "packages": packages}
    if request.get("model") and packages["mlx_lm"]["version"]:
        result["tokenizer"] = _count_tokens(request, scans, facts, write)
        result["model"] = _read_model(request)
    return result


def _facts(scan: Scan) -> dict[str, Any]:
    return {
        "path": scan.path,
        "format": scan.format,
        "lines": scan.lines,
        "samples": scan.samples,
        "size": scan.size,
        "errors": scan.errors,
        "warnings": scan.warnings,
        "counts": dict(scan.counts),
        "lengths": None,
        "preview": [],
    }


def _count_tokens(
    request: dict[str, Any],
    scans: Sequence[Scan | None],
    facts: Sequence[dict[str, Any] | None],
    write: Write,
) -> dict[str, Any]:
    """Adds the lengths to `facts`; says whether the tokenizer itself could be loaded."""
    # Only now: with these imports `validate` would take two seconds to begin.
    from mlx_lm.utils import load_tokenizer

    from safetraind.worker.data.encode_chat import Encoder
    from safetraind.worker.data.token_lengths import count

    extra = {"trust_remote_code": True} if request.get("trust_remote_code") else None
    try:
        folder = Path(request["model"])
        tokenizer = load_tokenizer(folder, extra, eos_token_ids=_ends(folder))
    except Exception as error:  # whatever a foreign model folder makes of it is the finding
        return {"loaded": False, "reason": str(error).strip().splitlines()[:1]}
    templates = tokenizer.chat_template
    names = sorted(templates) if isinstance(templates, dict) else []
    mask_prompt = bool(request.get("mask_prompt", True))
    thinking = str(request.get("thinking", "given"))
    encoder = Encoder(tokenizer, mask_prompt, request.get("vocabulary", 0), thinking)
    for scan, fact in zip(scans, facts, strict=True):
        if scan is not None and fact is not None:
            counting = {"counting": scan.path}  # that it goes on is all there is to say
            lengths = count(scan.draw, encoder, partial(write, counting))
            fact["lengths"] = lengths.as_dict()
            fact["preview"] = _as_seen(scan, encoder)
            if lengths.is_cut_off:  # the template would not end on the other file either
                break
    return {
        "loaded": True,
        "chat_template": tokenizer.has_chat_template,
        "templates": names,
        "reason": [],
    }


def _as_seen(scan: Scan, encoder: Encoder) -> list[dict[str, Any]]:
    """Some of the drawn samples as the model sees them, those that come first in the file."""
    from safetraind.worker.data.encode_chat import Refused
    from safetraind.worker.data.preview import as_seen
    from safetraind.worker.data.schema import form_of, parse

    shown = []
    for line in sorted(scan.draw, key=lambda line: line.number)[:_PREVIEWED]:
        sample = parse(line.content)
        with contextlib.suppress(Refused):  # which is a finding already
            encoded = encoder.encode(line.number, sample, form_of(sample))
            shown.append(as_seen(encoded, encoder.tokenizer, 0))
    return shown


def _read_model(request: dict[str, Any]) -> dict[str, Any]:
    """What is known of the model from config.json alone; nothing where it is of no known kind."""
    from safetraind.worker.model_reading import read_model

    try:
        return read_model(Path(request["model"]), request.get("targets", ()))
    except Exception:  # loading it will tell
        return {}


def _ends(folder: Path) -> Any:
    """The tokens at which the model stops, as loading reads them."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config.get("eos_token_id")


def _version(package: Supported) -> dict[str, str]:
    """The version of a package that can really be imported, else why it cannot."""
    try:
        module = importlib.import_module(package.module)
    except Exception as error:  # a broken package may raise anything
        return {"version": "", "reason": f"{type(error).__name__}: {error}"[:200]}
    try:
        version = importlib.metadata.version(package.distribution)
    except importlib.metadata.PackageNotFoundError:
        version = str(getattr(module, "__version__", "?"))
    return {"version": version, "reason": ""}


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):
        return 1 << 62


def _identity(path: str) -> object:
    """The same for all names of one file."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return path
    return found.st_dev, found.st_ino

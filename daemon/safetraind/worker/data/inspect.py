"""The worker role `inspect`: looks at training files, without the GPU lease.

`worker_messages.inspect_messages` has its request, its lines and its result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetrain_shared.errors import ArgValue, SafetrainError
from safetrain_shared.findings import Finding, Status, finding_of
from safetrain_shared.packages import PACKAGES, Supported
from safetraind.worker.exchange import Tell, answer, read_request
from safetraind.worker_messages.inspect_messages import (
    INSPECT,
    DataFile,
    FileSummary,
    InspectLine,
    InspectRequest,
    InspectResult,
    Lengths,
    ModelReading,
    Package,
    TokenizerFacts,
)
from safetraind.worker_messages.preview_messages import PreviewSample

if TYPE_CHECKING:  # they need packages of which this worker tells whether they are there
    from safetraind.worker.data.encode_chat import Encoder
    from safetraind.worker.data.scan import Scan

_PREVIEWED = 2  # samples of each file


def main(arguments: list[str]) -> int:
    """Inspect the files that the request in the run folder `arguments[0]` names. Return 0: problems
    of the files are a result, not a failure.
    """
    request = read_request(arguments[0], INSPECT.name, InspectRequest)
    inspect = _validate if request.files else _preflight
    answer(arguments[0], partial(inspect, request))
    return 0


def scan_files(paths: Sequence[str], tell: Tell) -> list[Scan | None]:
    """Scan files in the order given, and compare each with those before it.

    An item is None for a file that cannot be read, whose problem was reported.
    """
    from safetraind.worker.data.duplicate_index import Leakage
    from safetraind.worker.data.scan import Scan

    names = Counter(Path(path).name for path in paths)
    leakage, scans = Leakage(), list[Scan | None]()
    for place, path in enumerate(paths):
        scan = Scan(path, name=path if names[Path(path).name] > 1 else "")
        scan.leakage = leakage if place else None
        scan.indexing = leakage if place < len(paths) - 1 else None
        scans.append(scan if _run(scan, tell) else None)
        leakage.freeze()
    return scans


def _run(scan: Scan, tell: Tell) -> bool:
    try:
        for found in scan.run():
            if isinstance(found, Finding):
                tell(InspectLine(problem=found))
            else:
                tell(InspectLine(progress=found))
    except SafetrainError as error:
        tell(InspectLine(problem=_unreadable(error)))
        return False
    problems = scan.errors + scan.warnings
    summary = FileSummary(scan.path, scan.lines, scan.samples, problems, scan.format)
    tell(InspectLine(summary=summary))
    return True


def _unreadable(error: SafetrainError) -> Finding:
    found = finding_of(error)
    return dataclasses.replace(found, args={"line": 0, **found.args}, section="data")


def _validate(request: InspectRequest, tell: Tell) -> InspectResult:
    """Inspect the files from the smallest to the largest. The largest need not be kept for
    comparison then.
    """
    known: dict[object, str] = {}
    for path in request.files:
        first = known.setdefault(_identity(path), path)
        if first is not path:
            args: dict[str, ArgValue] = {"path": path, "line": 0, "other": first}
            tell(InspectLine(problem=Finding("data.same_file", Status.WARNING, args=args)))
    scan_files(sorted(known.values(), key=_size), tell)
    return InspectResult()


def _preflight(request: InspectRequest, tell: Tell) -> InspectResult:
    packages = {package.module: _version(package) for package in PACKAGES}
    # They come first, so that they are known though the worker dies for want of one.
    tell(InspectLine(packages=packages))
    try:
        valid, train = scan_files([request.valid, request.train], tell)
        _judge_questions(request, tell)
    except ImportError:
        return InspectResult(packages=packages)  # which tell why
    scans = (train, valid)
    if not request.model or not packages["mlx_lm"].version:
        return InspectResult(_facts(train), _facts(valid), packages)
    tokenizer, files = _count_tokens(request, scans, tell)
    return InspectResult(files[0], files[1], packages, tokenizer, _read_model(request))


def _judge_questions(request: InspectRequest, tell: Tell) -> None:
    """Report what the evaluation after the training would refuse about its questions."""
    if not request.questions:
        return
    from safetraind.worker.evaluation.leaks import refuse_leaked
    from safetraind.worker.evaluation.question_set import read_questions

    try:
        questions = read_questions(request.questions, request.question_limit)
        refuse_leaked(questions, request.questions, request.train)
    except SafetrainError as error:
        tell(InspectLine(problem=dataclasses.replace(finding_of(error), section="questions")))


def _facts(
    scan: Scan | None, lengths: Lengths | None = None, preview: tuple[PreviewSample, ...] = ()
) -> DataFile | None:
    if scan is None:
        return None
    return DataFile(
        path=scan.path,
        format=scan.format,
        lines=scan.lines,
        samples=scan.samples,
        size=scan.size,
        errors=scan.errors,
        warnings=scan.warnings,
        unlearned=scan.unlearned,
        counts=dict(scan.counts),
        lengths=lengths,
        preview=preview,
    )


def _count_tokens(
    request: InspectRequest, scans: Sequence[Scan | None], tell: Tell
) -> tuple[TokenizerFacts, list[DataFile | None]]:
    """Return whether the tokenizer itself could be loaded, and each file with its lengths."""
    # Only now: with these imports `validate` would take two seconds to begin.
    from mlx_lm.utils import load_tokenizer

    from safetraind.worker.data.encode_chat import Encoder
    from safetraind.worker.data.token_lengths import count

    files = [_facts(scan) for scan in scans]
    extra = {"trust_remote_code": True} if request.trust_remote_code else None
    try:
        folder = Path(request.model)
        tokenizer = load_tokenizer(folder, extra, eos_token_ids=_ends(folder))
    except Exception as error:  # whatever a foreign model folder makes of it is the finding
        reason = "".join(str(error).strip().splitlines()[:1])
        return TokenizerFacts(loaded=False, reason=reason), files
    templates = tokenizer.chat_template
    names = sorted(templates) if isinstance(templates, dict) else []
    encoder = Encoder(tokenizer, request.mask_prompt, request.vocabulary, request.thinking)
    for place, scan in enumerate(scans):
        if scan is not None:
            counting = InspectLine(counting=scan.path)  # that it goes on is all there is to say
            counted = count(scan.draw, encoder, partial(tell, counting))
            files[place] = _facts(scan, counted.message(), _as_seen(scan, encoder))
            if counted.is_cut_off:  # the template would not end on the other file either
                break
    facts = TokenizerFacts(chat_template=tokenizer.has_chat_template, templates=tuple(names))
    return facts, files


def _as_seen(scan: Scan, encoder: Encoder) -> tuple[PreviewSample, ...]:
    """Return the first of the drawn samples in file order, as the model sees them."""
    from safetraind.worker.data.encode_chat import Refused
    from safetraind.worker.data.preview import as_seen
    from safetraind.worker.data.schema import form_of, parse

    shown = []
    for line in sorted(scan.draw, key=lambda line: line.number)[:_PREVIEWED]:
        sample = parse(line.content)
        with contextlib.suppress(Refused):  # which is a finding already
            encoded = encoder.encode(line.number, sample, form_of(sample))
            shown.append(as_seen(encoded, encoder.tokenizer, 0))
    return tuple(shown)


def _read_model(request: InspectRequest) -> ModelReading:
    """Return the reading of config.json alone; an empty one where its architecture is unknown."""
    from safetraind.worker.model_reading import read_model

    try:
        return read_model(Path(request.model), request.targets)
    except Exception:  # loading it will tell
        return ModelReading()


def _ends(folder: Path) -> Any:
    """Return the tokens at which the model stops, as loading reads them."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config.get("eos_token_id")


def _version(package: Supported) -> Package:
    """Return the version of a package that can be imported, else the reason why it cannot."""
    try:
        module = importlib.import_module(package.module)
    except Exception as error:  # a broken package may raise anything
        return Package("", f"{type(error).__name__}: {error}"[:200])
    try:
        version = importlib.metadata.version(package.distribution)
    except importlib.metadata.PackageNotFoundError:
        version = str(getattr(module, "__version__", "?"))
    return Package(version)


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):
        return 1 << 62


def _identity(path: str) -> object:
    """Return a value that is the same for all names of one file."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return path
    return found.st_dev, found.st_ino

"""The worker role `preview`: samples of a file as the model sees them, through its chat template.

`worker_messages.preview_messages` has its request and its result. Without the GPU lease: it loads
no weights.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_tokenizer

from safetrain_shared.errors import InvalidInput
from safetrain_shared.findings import Finding, Status
from safetraind.worker.data.encode_chat import Encoded, Encoder, Refused
from safetraind.worker.data.schema import Problem, Unusable, form_of, judge
from safetraind.worker.exchange import answer, read_request
from safetraind.worker.hub import tokenizer_files
from safetraind.worker.prepare.read_rows import Row, Source
from safetraind.worker.prepare.sample_forms import Unmapped
from safetraind.worker.prepare.sample_forms import form_of as prepared_form
from safetraind.worker_messages.preview_messages import (
    PREVIEW,
    PreviewPiece,
    PreviewRequest,
    PreviewResult,
    PreviewSample,
)

_COUNTED = 1000  # samples: some seconds of work
_GUESSED_FROM = 50  # rows
# A sample of many thousand tokens says nothing more by being shown whole.
_MOST_CHARACTERS = 20_000


def main(arguments: list[str]) -> int:
    """Render the samples that the request in the run folder `arguments[0]` names. Return 0:
    problems of file or model are a result.
    """
    request = read_request(arguments[0], PREVIEW.name, PreviewRequest)
    answer(arguments[0], lambda _: preview(request))
    return 0


def preview(request: PreviewRequest) -> PreviewResult:
    """Return the first samples, and the lengths of the first thousand. Raises SafetrainError."""
    samples = list(_samples(request.path))
    encoder = Encoder(_tokenizer(request), request.mask_prompt, thinking=request.thinking)
    length, wanted = request.length, request.samples
    shown: list[PreviewSample] = []
    lengths, lost, failed = list[int](), 0, 0
    for row, sample in samples:
        encoded = _encoded(encoder, row.place, sample)
        if isinstance(encoded, Problem):
            failed += 1
            if len(shown) < wanted:
                shown.append(PreviewSample(row.place, problems=(_finding(encoded, row.place),)))
            continue
        lengths.append(len(encoded.tokens))
        lost += bool(length) and True not in encoded.learned[1:length]
        if len(shown) < wanted:
            shown.append(as_seen(encoded, encoder.tokenizer, length))
    return PreviewResult(
        samples=tuple(shown),
        counted=len(lengths),
        median=int(statistics.median(lengths)) if lengths else 0,
        longest=max(lengths, default=0),
        cut=sum(tokens > length for tokens in lengths) if length else 0,
        lost=lost,
        failed=failed,
    )


def as_seen(encoded: Encoded, tokenizer: TokenizerWrapper, length: int) -> PreviewSample:
    """Return one sample as runs of tokens that are either all learned or all not. `length` as in
    the request.
    """
    marks = [
        (learned, bool(length) and place >= length) for place, learned in enumerate(encoded.learned)
    ]
    pieces, end, before = [], 0, ""
    for (learned, cut), run in groupby(marks):
        end += len(list(run))
        # What is decoded from the beginning keeps the spaces that single pieces would lose.
        text = tokenizer.decode(encoded.tokens[:end])
        pieces.append(PreviewPiece(text[len(before) :], learned, cut))
        before = text
        if end >= _MOST_CHARACTERS:
            break
    kept = encoded.learned[:length] if length else encoded.learned
    return PreviewSample(
        line=encoded.line,
        pieces=tuple(pieces),
        tokens=len(encoded.tokens),
        learned=sum(kept),
        problems=tuple(_finding(problem, encoded.line) for problem in encoded.problems),
    )


def _samples(path: str) -> Iterator[tuple[Row, Any]]:
    """Yield the file's first records as samples. Those of a foreign form are read as `prepare`
    reads them.

    None stands for a record that is no sample. Raises InvalidInput where no record is one.
    """
    rows = list(islice(Source(path).rows(), _COUNTED))
    if any(_is_sample(row.value) for row in rows[:_GUESSED_FROM]):
        yield from ((row, row.value if _is_sample(row.value) else None) for row in rows)
        return
    form = next((f for row in rows[:_GUESSED_FROM] if (f := prepared_form(row.value, {}))), None)
    if form is None:
        raise InvalidInput("prepare.no_columns", path=path, keys="-")
    for row in rows:
        try:
            yield row, form.sample(row.value)
        except Unmapped:
            yield row, None


def _is_sample(value: Any) -> bool:
    try:
        return isinstance(value, dict) and bool(form_of(value))
    except Unusable:
        return False


def _encoded(encoder: Encoder, line: int, sample: Any) -> Encoded | Problem:
    if sample is None:
        return Problem("data.unknown_format", args={"keys": "-"})
    form = form_of(sample)
    wrong = next((p for p in judge(sample, form) if p.status is Status.FAILED), None)
    if wrong is not None:
        return wrong
    try:
        return encoder.encode(line, sample, form)
    except Refused as error:
        return Problem("train.template_refuses", args={"reason": str(error)})


def _finding(problem: Problem, line: int) -> Finding:
    return Finding(problem.code, problem.status, args={"line": line, **problem.args})


def _tokenizer(request: PreviewRequest) -> TokenizerWrapper:
    """Return the model's tokenizer, without its weights. Raises InvalidInput, and the hub's
    errors.
    """
    folder = tokenizer_files(request.model) if request.hub else Path(request.model)
    extra = {"trust_remote_code": True} if request.trust_remote_code else None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tokenizer = load_tokenizer(folder, extra, eos_token_ids=config.get("eos_token_id"))
    except Exception as error:  # whatever a foreign model folder makes of it is the reason
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InvalidInput("data.no_tokenizer", reason=reason) from error
    return tokenizer

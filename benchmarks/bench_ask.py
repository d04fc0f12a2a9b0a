"""`python -m benchmarks.bench_ask`: a warm `safetrain ask` against a fresh `mlx_lm generate`.

Both start a process for each question, as a user at a terminal does, and are timed from there by
what reaches their standard output. Equal settings: the same folder of float32 weights, the same
BLAS, chat template and questions, greedy, as many tokens. A question is never asked twice, so that
no answer profits from one before it but for the beginning that the template gives all of them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlx_lm.utils import save

from safetrain_shared.paths import home
from safetraind.processes.worker_environment import for_computing
from safetraind.worker import loading

_RULE = b"==========\n"
_NUMBERS = re.compile(r"(\d[\d.,]*) tokens ·|Generation: (\d+) tokens")
_QUESTIONS = (
    "Tell me about the city of Faro in Portugal.",
    "Why does the sea look blue on a clear day?",
    "How do I bake bread without an oven?",
    "Explain what a football league table shows.",
    "What should I pack for a week in the mountains?",
    "Describe how a bicycle keeps its balance.",
    "How did people tell the time before clocks?",
    "What makes a good teacher, in your opinion?",
    "Why do leaves change their colour in autumn?",
    "How does a lighthouse help ships at night?",
    "What is the difference between a lake and a lagoon?",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came: the text, its tokens, seconds from process start to the first and last of it."""

    text: str
    tokens: int
    first: float
    last: float

    @property
    def rate(self) -> float:
        """Tokens per second after the first one."""
        return (self.tokens - 1) / (self.last - self.first)


def main() -> None:
    """Prints medians, their spread, and the ratios of each round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=home().models / "demo")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--rounds", type=int, default=5, help=f"at most {len(_QUESTIONS) - 1}")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = _float32(chosen.model.resolve(), Path(folder) / "model")
        environment = _environment(Path(folder) / "home")
        try:
            rounds = _race(weights, environment, chosen.tokens, chosen.rounds)
        finally:
            _safetraind("stop", "--now", environment=environment)
    _report(rounds, chosen.tokens)


def _race(
    weights: Path, environment: dict[str, str], tokens: int, rounds: int
) -> list[tuple[Answer, Answer]]:
    """An answer of ours and one of mlx-lm's to each question, in turn, after one to warm up."""
    limit = ["--model", str(weights), "--max-tokens", str(tokens)]
    ours = [sys.executable, "-m", "safetrain", "--lang", "en", "ask", *limit]
    theirs = [sys.executable, "-m", "mlx_lm", "generate", *limit, "--temp", "0", "--prompt"]
    answers = []
    for question in _QUESTIONS[: rounds + 1]:
        pair = _timed([*ours, question], environment), _timed([*theirs, question], environment)
        answers.append(pair)
    return answers[1:]


def _timed(command: Sequence[str], environment: dict[str, str]) -> Answer:
    """Runs the command and notes when what it writes to standard output arrives."""
    began, pieces, times = time.perf_counter(), [], []
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment)
        assert process.stdout is not None
        while piece := os.read(process.stdout.fileno(), 1 << 16):
            pieces.append(piece)
            times.append(time.perf_counter() - began)
        code = process.wait()
        errors.seek(0)
        said = errors.read().decode()
    written = b"".join(pieces)
    if code:
        raise SystemExit(f"{' '.join(command)}: exit code {code}\n{said}")
    start = len(_RULE) if written.startswith(_RULE) else 0
    end = written.rindex(b"\n" + _RULE) if start else len(written.rstrip(b"\n"))
    counted = _NUMBERS.search(said + written[end:].decode())
    assert counted is not None, said
    return Answer(
        text=written[start:end].decode(),
        tokens=int(counted[1] or counted[2]),
        first=_when(pieces, times, start + 1),
        last=_when(pieces, times, end),
    )


def _when(pieces: Sequence[bytes], times: Sequence[float], position: int) -> float:
    """When as many bytes had come."""
    come = 0
    for piece, seconds in zip(pieces, times, strict=True):
        come += len(piece)
        if come >= position:
            return seconds
    raise ValueError(position)


def _report(rounds: Sequence[tuple[Answer, Answer]], tokens: int) -> None:
    alike = sum(ours.text == theirs.text for ours, theirs in rounds)
    print(f"\nA warm ask against a fresh mlx_lm generate: {len(rounds)} questions, {tokens} tokens")
    print(f"  same words: {alike} of {len(rounds)}")
    for ours, theirs in rounds:
        if ours.text != theirs.text:
            print(f"    ours   {ours.text!r}\n    theirs {theirs.text!r}")
    first = [(ours.first, theirs.first) for ours, theirs in rounds]
    print(f"  first token   {_line(first, 's')}, sooner {_ratio([b / a for a, b in first])}")
    rate = [(ours.rate, theirs.rate) for ours, theirs in rounds]
    print(f"  speed         {_line(rate, 'tokens/s')}, ratio {_ratio([a / b for a, b in rate])}")


def _line(pairs: Sequence[tuple[float, float]], unit: str) -> str:
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    return f"ours {_spread(ours)} {unit}, theirs {_spread(theirs)} {unit}"


def _ratio(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f}× ({min(ratios):.2f} to {max(ratios):.2f})"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _float32(model: Path, folder: Path) -> Path:
    """The model with all weights in float32, in a folder that both load."""
    loaded = loading.load(str(model), dequantize=True)
    config = {k: v for k, v in loaded.config.items() if not k.startswith("quantization")}
    save(folder, model, loaded.model, loaded.tokenizer, config)
    return folder


def _environment(home_folder: Path) -> dict[str, str]:
    folders = {"SAFETRAIN_HOME": str(home_folder), "HF_HUB_OFFLINE": "1"}
    return for_computing(os.environ | folders)


def _safetraind(*arguments: str, environment: dict[str, str]) -> None:
    command = shutil.which("safetraind", path=str(Path(sys.executable).parent))
    assert command is not None
    subprocess.run([command, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()

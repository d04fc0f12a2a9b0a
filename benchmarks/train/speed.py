"""Real tokens per second, ours and mlx-lm's: whole loops in processes of their own, a step of one
and a step of the other in turn.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from mlx_lm.utils import load_tokenizer

from benchmarks.train import lengths, setup
from benchmarks.train.contestant import EQUAL_EVERY, LINES, NAMES

POOL = 256  # samples of each distribution; a race sees the first of the shuffled batches of them
TURNS = 2  # steps of mlx-lm's in a round
THEIRS, EQUAL, *OTHERS = NAMES

Step = tuple[int, float]  # real tokens, seconds of the loop's body
Round = dict[str, list[Step]]  # by contestant


def report(model: Path, rounds: int, layers: int) -> None:
    """Prints a table: speeds of each contestant, and ratios to mlx-lm's in the same round."""
    print(f"\nReal tokens per second, batch 4, {layers} LoRA layers, float32, every token learned:")
    print(
        f"{rounds} rounds of {TURNS} steps over {POOL} samples, seed {setup.SEED}; median", end=" "
    )
    print("(least to most) of the rounds,\nand of the ratios to mlx_lm in the same round")
    for distribution in lengths.DISTRIBUTIONS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            sizes = lengths.lengths(distribution, POOL, setup.SEED)
            lines = lengths.texts(sizes, load_tokenizer(model), setup.SEED)
            (folder / LINES).write_text(json.dumps(lines))
            raced = _race(model, folder, rounds, layers)
        print(f"  {distribution}: {sizes.min()} to {sizes.max()} tokens, mean {sizes.mean():.0f}")
        _print(raced)


def _race(model: Path, folder: Path, rounds: int, layers: int) -> list[Round]:
    """The rounds, after a step of each that compiles and warms up."""
    with ExitStack() as stack:
        racing = {n: stack.enter_context(_started(n, model, folder, layers)) for n in NAMES}
        for contestant in racing.values():
            _answer(contestant)  # loaded and ready
        for contestant in racing.values():
            _step(contestant)
        raced = [_round(racing) for _ in range(rounds)]
        for contestant in racing.values():
            contestant.communicate()  # it ends where its input does
        return raced


def _round(racing: Mapping[str, subprocess.Popen[str]]) -> Round:
    """Theirs does its steps; after each one, ours does as many tokens in each of its ways."""
    done: Round = {name: [] for name in NAMES}
    for turn in range(TURNS):
        done[THEIRS].append(_step(racing[THEIRS]))
        if turn % EQUAL_EVERY == 0:
            done[EQUAL].append(_step(racing[EQUAL]))
        for name in OTHERS:
            while _tokens(done[name]) < _tokens(done[THEIRS]):
                done[name].append(_step(racing[name]))
    return done


def _started(name: str, model: Path, folder: Path, layers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.train.contestant"]
    command += [name, str(model), str(folder), str(layers)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ)


def _step(contestant: subprocess.Popen[str]) -> Step:
    assert contestant.stdin is not None
    contestant.stdin.write("step\n")
    contestant.stdin.flush()
    return _answer(contestant)


def _answer(contestant: subprocess.Popen[str]) -> Step:
    assert contestant.stdout is not None
    if not (line := contestant.stdout.readline()):
        raise SystemExit(f"{contestant.args} ended")
    tokens, seconds = json.loads(line)
    return tokens, seconds


def _print(raced: Sequence[Round]) -> None:
    whole = [_rate(done[THEIRS]) for done in raced]
    some = [_rate(done[THEIRS][::EQUAL_EVERY]) for done in raced]
    print(f"    {THEIRS:14} {_spread(whole, 0)}")
    for name in (EQUAL, *OTHERS):
        ours, theirs = [_rate(done[name]) for done in raced], some if name == EQUAL else whole
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        beside = f" against {_spread(theirs, 0)} on the same" if name == EQUAL else ""
        print(f"    {name:14} {_spread(ours, 0)}{beside}: {_spread(ratios, 2)}×", flush=True)


def _rate(steps: Sequence[Step]) -> float:
    return _tokens(steps) / sum(seconds for _, seconds in steps)


def _tokens(steps: Sequence[Step]) -> int:
    return sum(tokens for tokens, _ in steps)


def _spread(values: Sequence[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"

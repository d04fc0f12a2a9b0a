"""Real tokens per second, ours and mlx-lm's: whole loops in processes of their own, a step of one
and a step of the other in turn.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from mlx_lm.utils import load_tokenizer

from benchmarks.train import lengths, setup
from benchmarks.train.contestant import EQUAL, EVERY, LINES, NAMES, THEIRS, TURNS

POOL = 256  # samples of each distribution

Step = tuple[int, float]  # real tokens, seconds of the loop's body
Round = dict[str, list[Step]]  # by contestant
Contestant = subprocess.Popen[str]


def report(model: Path, rounds: int, layers: int) -> None:
    """Prints a table: the speed of each contestant, and its ratio to mlx-lm's."""
    print(f"\nReal tokens per second, batch 4, {layers} LoRA layers, float32, every token learned:")
    print(
        f"{rounds} rounds of {TURNS} batches from all over an epoch of {POOL} samples, seed",
        end=" ",
    )
    print(f"{setup.SEED};\nall of it (the slowest and the fastest round)")
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
    """The rounds, after a small step of each that compiles and warms up."""
    with ExitStack() as stack:
        racing = {
            name: stack.enter_context(_started(name, model, folder, layers, rounds))
            for name in NAMES
        }
        for contestant in racing.values():
            _answer(contestant)  # loaded and ready
        for contestant in racing.values():
            _step(contestant)
        raced = [_round(racing) for _ in range(rounds)]
        for contestant in racing.values():
            contestant.communicate()  # it ends where its input does
        return raced


def _round(racing: Mapping[str, Contestant]) -> Round:
    done: Round = {name: [] for name in NAMES}
    for turn in range(TURNS):
        for name, contestant in racing.items():
            if turn % EVERY[name] == 0:
                done[name].append(_step(contestant))
    return done


def _started(name: str, model: Path, folder: Path, layers: int, rounds: int) -> Contestant:
    command = [sys.executable, "-m", "benchmarks.train.contestant", name, str(model), str(folder)]
    command += [str(layers), str(rounds)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ)


def _step(contestant: Contestant) -> Step:
    assert contestant.stdin is not None
    contestant.stdin.write("step\n")
    contestant.stdin.flush()
    return _answer(contestant)


def _answer(contestant: Contestant) -> Step:
    assert contestant.stdout is not None
    if not (line := contestant.stdout.readline()):
        raise SystemExit(f"{contestant.args!r} ended")
    tokens, seconds = json.loads(line)
    return tokens, seconds


def _print(raced: Sequence[Round]) -> None:
    theirs = [done[THEIRS] for done in raced]
    print(f"    {THEIRS:14} {_summed(theirs)}")
    for name in NAMES[1:]:
        ours = [done[name] for done in raced]
        same = [steps[:: EVERY[EQUAL]] for steps in theirs] if name == EQUAL else theirs
        beside = f" against {_summed(same)} on the same" if name == EQUAL else ""
        print(f"    {name:14} {_summed(ours)}{beside}: {_ratio(ours, same)}", flush=True)


def _summed(rounds: Sequence[Sequence[Step]]) -> str:
    rates = [_rate(steps) for steps in rounds]
    return f"{_whole(rounds):.0f} ({min(rates):.0f} to {max(rates):.0f})"


def _ratio(ours: Sequence[Sequence[Step]], theirs: Sequence[Sequence[Step]]) -> str:
    ratios = [_rate(a) / _rate(b) for a, b in zip(ours, theirs, strict=True)]
    return f"{_whole(ours) / _whole(theirs):.2f}× ({min(ratios):.2f} to {max(ratios):.2f})"


def _whole(rounds: Sequence[Sequence[Step]]) -> float:
    return _rate(list(itertools.chain.from_iterable(rounds)))


def _rate(steps: Sequence[Step]) -> float:
    return sum(tokens for tokens, _ in steps) / sum(seconds for _, seconds in steps)

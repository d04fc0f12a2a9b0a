"""`python -m benchmarks.conformance`: who passes what, ours and mlx-lm's trainer side by side."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.conformance.ours import Ours
from benchmarks.conformance.properties import PROPERTIES, Property
from benchmarks.conformance.theirs import Theirs
from benchmarks.conformance.trainer import HasNone, Trainer
from tests.tiny import make_tiny_model


def main() -> int:
    """Prints the table; 0 where ours passes everything."""
    trainers: tuple[Trainer, ...] = (Ours(), Theirs())
    passed = {trainer.name: 0 for trainer in trainers}
    with tempfile.TemporaryDirectory() as name:
        model = make_tiny_model(Path(name) / "model", layers=2, hidden=32)
        for wanted in PROPERTIES:
            print(f"\n{' '.join((wanted.__doc__ or '').split())}")
            for trainer in trainers:
                folder = Path(name) / trainer.name / wanted.__name__
                problem = _tried(wanted, trainer, model, folder)
                passed[trainer.name] += not problem
                print(f"  {'✗' if problem else '✓'} {trainer.name:10} {problem}", flush=True)
    print()
    for trainer in trainers:
        print(f"{trainer.name:10} passes {passed[trainer.name]} of {len(PROPERTIES)}")
    return 0 if passed["safetrain"] == len(PROPERTIES) else 1


def _tried(wanted: Property, trainer: Trainer, model: Path, folder: Path) -> str:
    """Why the trainer fails the property; empty where it passes."""
    try:
        wanted(trainer, model, folder)
    except HasNone as lacking:
        return f"has none: {lacking}"
    except AssertionError as failure:
        return str(failure).splitlines()[0] or "fails"
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


if __name__ == "__main__":
    sys.exit(main())

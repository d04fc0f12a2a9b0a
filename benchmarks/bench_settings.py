"""`python -m benchmarks.bench_settings`: recommended settings against the best of a grid.

For each of five data sets a real preflight (with a pilot) recommends; then the real training worker
trains with that, and with each point of a grid of rates and epochs, and every adapter answers the
held-out questions. The recommended training has these questions, as with `submit --questions`, and
may end early by the half of them that is for choosing. The grid's best is the point with the
highest score over that half, among equals the quickest. It is compared over the other half: the
highest of several scores is too high by luck, and would be no fair measure. Times are from the
first step to the last checkpoint, with all that stands between steps: evaluations, questions and
checkpoints; of short trainings the median of three each, run in turn. The time of preflight, with
its pilot, stands beside them.

The model `tiny` is made on the spot and has never seen language. Where no point of the grid answers
a tenth of the questions, scores are luck; the grid's best is then the point with the lowest
validation loss, and what is compared is by how much the loss fell.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlx_lm.generate import batch_generate

from benchmarks.settings.data_sets import DataSet, data_sets
from safetrain_shared.evaluations import EvaluationSpec
from safetrain_shared.events import CheckpointSaved, PhaseChanged
from safetrain_shared.jobs import JobSpec, Plan
from safetrain_shared.paths import SUMMARY, Home
from safetrain_shared.settings import TrainingSettings
from safetraind.preflight.preflight_run import PreflightRun
from safetraind.storage import event_file
from safetraind.worker import loading
from safetraind.worker.evaluation.evaluate import scores
from safetraind.worker.evaluation.question_set import Question, read_questions
from safetraind.worker.evaluation.selection import split
from safetraind.worker.inference.generation import encode_prompt
from tests.preflight.direct import DirectWorkers
from tests.tiny import make_tiny_model
from tests.trainer.runs import Run, make_run

REPORT = Path("reports/settings.json")
MULTIPLES, EPOCHS = (0.25, 1.0, 4.0, 16.0), (3, 10)
ENOUGH, SLOWEST = 0.95, 1.2
_BY_LUCK = 0.1
_SHORT = 15.0  # seconds of a training, in which a second of the machine's own counts
_ANSWER_TOKENS = 32


def main() -> int:
    """Print a line a data set, write the report; 1 where a recommendation falls short."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="tiny", help="tiny, or the folder of a model")
    parser.add_argument("--only", default="", help="one data set")
    parser.add_argument("--pilot", type=float, default=2.0, help="minutes")
    chosen = parser.parse_args()
    rows = []
    for data in data_sets():
        if chosen.only in ("", data.name):
            with tempfile.TemporaryDirectory() as name:
                rows.append(_compared(Path(name), data, chosen.model, chosen.pilot))
            print(json.dumps(rows[-1]), flush=True)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return int(not all(row["enough"] and row["quick"] and not row["diverged"] for row in rows))


def _compared(root: Path, data: DataSet, model: str, pilot: float) -> dict[str, Any]:
    folder = make_tiny_model(root / "model") if model == "tiny" else Path(model)
    train, valid, questions = data.write(root / "data")
    began = time.monotonic()
    plan = _recommended(root, folder, train, valid, questions, pilot)
    preflight = time.monotonic() - began
    trainer = Trainer(folder, train, valid, questions)
    ours = trainer.trained(root / "ours", plan.settings, stops=True)
    points = _points(plan.settings)
    grid = [trainer.trained(root / f"grid-{n}", point) for n, point in enumerate(points)]
    best, share = _share_of_the_best(ours, grid)
    if max(ours["seconds"], best["seconds"]) < _SHORT:
        times = [(ours["seconds"], best["seconds"])]
        times += _times_again(root, trainer, plan.settings, points[grid.index(best)])
        ours["seconds"], best["seconds"] = map(statistics.median, zip(*times, strict=True))
    return {
        "data": data.name,
        "model": model,
        "recommended": ours,
        "preflight_seconds": round(preflight, 1),
        "best": best,
        "lowest_loss": min(one["loss"] for one in grid),
        "share": round(share, 3),
        "enough": share >= ENOUGH,
        "quick": ours["seconds"] <= SLOWEST * best["seconds"],
        "diverged": ours["outcome"] != "succeeded" or ours["loss"] > ours["base_loss"],
    }


def _times_again(
    root: Path, trainer: Trainer, ours: TrainingSettings, best: TrainingSettings
) -> Iterator[tuple[float, float]]:
    """Train with both twice more, in turn. Yield the seconds of each pair."""
    for n in (1, 2):
        mine = trainer.run(root / f"ours-{n}", ours, stops=True)
        other = trainer.run(root / f"best-{n}", best)
        yield _seconds(mine), _seconds(other)


def _share_of_the_best(
    ours: dict[str, Any], grid: Sequence[dict[str, Any]]
) -> tuple[dict[str, Any], float]:
    """Return the grid's best point, and what the recommendation reached as a share of it."""
    if max(one["chosen_by"] + one["score"] for one in grid) >= 2 * _BY_LUCK:
        best = max(grid, key=lambda one: (one["chosen_by"], -one["seconds"]))
        return best, ours["score"] / best["score"] if best["score"] else 1.0
    best = min(grid, key=lambda one: one["loss"])
    return best, (ours["base_loss"] - ours["loss"]) / (best["base_loss"] - best["loss"])


def _recommended(
    root: Path, model: Path, train: Path, valid: Path, questions: Path, pilot: float
) -> Plan:
    settings = {"pilot_minutes": pilot} if pilot else {}
    asked = EvaluationSpec(questions=str(questions))
    paths = (str(model), str(train), str(valid), str(root / "out"))
    spec = JobSpec(*paths, settings=settings, evaluation=asked)
    run = PreflightRun(spec, DirectWorkers(root / "workers"), Home(root / "home"), model)

    async def whole() -> None:
        async for _ in run.run():
            pass

    asyncio.run(whole())
    assert run.plan is not None, run.findings
    return run.plan


def _points(recommended: TrainingSettings) -> list[TrainingSettings]:
    """Return the grid. Its middle is the table's rate, not what the pilot found."""
    return [
        dataclasses.replace(
            recommended, learning_rate=multiple * 2e-4, num_epochs=epochs, early_stopping=0
        )
        for multiple, epochs in itertools.product(MULTIPLES, EPOCHS)
    ]


@dataclasses.dataclass(frozen=True)
class Trainer:
    """Trains one model on one data set, with the real worker."""

    model: Path
    train: Path
    valid: Path
    questions: Path

    def run(self, root: Path, settings: TrainingSettings, *, stops: bool = False) -> Run:
        """Train in the folder `root`. `stops`: the questions may end it."""
        asked = EvaluationSpec(questions=str(self.questions)) if stops else None
        data = self.train, self.valid
        run = make_run(root, self.model, data, evaluation=asked, **dataclasses.asdict(settings))
        code = run.start().wait()
        assert code == 0, run.folder.log.read_text()
        return run

    def trained(
        self, root: Path, settings: TrainingSettings, *, stops: bool = False
    ) -> dict[str, Any]:
        """Train as `run` does. Return the settings, and what came of them."""
        run = self.run(root, settings, stops=stops)
        summary = run.json(SUMMARY)
        chosen_by, score = _marks(self.model, run.output / "adapters", self.questions)
        return {
            "rate": settings.learning_rate,
            "epochs": settings.num_epochs,
            "outcome": summary["outcome"],
            "steps": summary["steps"],
            "seconds": _seconds(run),
            "base_loss": summary["base_loss"],
            "loss": summary["best"].get("loss", float("inf")),
            "chosen_by": chosen_by,
            "score": score,
        }


def _seconds(run: Run) -> float:
    """Return the seconds from the first step to the last checkpoint."""
    events = [read.event for read in event_file.read(run.folder.events)]
    trains = (e.time for e in events if e.body == PhaseChanged("training"))
    saved = [e.time for e in events if isinstance(e.body, CheckpointSaved)]
    return round(saved[-1] - next(trains), 2)


def _marks(model: Path, adapter: Path, questions: Path) -> tuple[float, float]:
    """Return the mean score, 0 to 1, over the questions for choosing and over the others."""
    if not adapter.exists():
        return 0.0, 0.0
    loaded = loading.load(str(model))
    loading.attach_adapter(loaded.model, adapter)
    choosing, reported = split(read_questions(str(questions)))
    return _mean_score(loaded, choosing), _mean_score(loaded, reported)


def _mean_score(loaded: loading.LoadedModel, asked: Sequence[Question]) -> float:
    prompts = [encode_prompt(loaded.tokenizer, one.messages) for one in asked]
    said = batch_generate(loaded.model, loaded.tokenizer, prompts, max_tokens=_ANSWER_TOKENS)
    return sum(scores(asked, said.texts)) / len(asked)


if __name__ == "__main__":
    sys.exit(main())

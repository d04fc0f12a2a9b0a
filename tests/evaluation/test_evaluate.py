"""An evaluation from questions to a verdict, in the worker's own process."""

from __future__ import annotations

import json
import math
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from safetrain_shared.errors import InvalidInput, NotFound
from safetrain_shared.evaluations import Evaluation, EvaluationSpec
from safetrain_shared.settings import TrainingSettings
from safetraind.storage import documents, training_state
from safetraind.storage.training_state import TrainingState
from safetraind.worker import loading
from safetraind.worker.evaluation import answering, choosers, evaluate
from safetraind.worker.evaluation.evaluate import Work
from safetraind.worker.evaluation.general_suite import UNBOUNDED, general_questions
from safetraind.worker.evaluation.question_set import read_questions
from safetraind.worker.training import adapters
from safetraind.worker.training.step import Stepper
from tests.tiny import make_chat_data, make_tiny_model

QUESTIONS = [
    {"question": f"Quem marcou o golo número {n} do torneio de inverno?", "answer": f"Jogador {n}"}
    for n in range(20)
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    make_tiny_model(folder / "model", layers=2)
    make_chat_data(folder, train=12, valid=4)
    lines = "\n".join(json.dumps({**q, "match": "contains"}) for q in QUESTIONS)
    (folder / "questions.jsonl").write_text(lines, encoding="utf-8")
    save_new_adapter(folder / "model", folder / "adapters")
    return folder


def save_new_adapter(model: Path, folder: Path, changed: float = 0.0) -> None:
    """An adapter whose outputs are those of its base, or `changed` by that much random weight."""
    loaded = loading.load(str(model))
    settings = TrainingSettings(lora_layers=2, lora_rank=4)
    stepper = Stepper(loaded.model, settings, 1)
    weights = adapters.weights(stepper.model)
    if changed:
        weights = {n: w + changed * mx.random.normal(w.shape) for n, w in weights.items()}
    folder.mkdir()
    mx.save_safetensors(str(folder / adapters.WEIGHTS), weights)
    adapters.write_config(folder, stepper.model, settings, str(model))


class Watching:
    """A watcher that notes what it is told, and ends the evaluation after so many looks."""

    def __init__(self, looks: int = 1 << 30) -> None:
        self.phases: list[str] = []
        self.answered: list[int] = []
        self.looks = looks

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def kept(self, answered: int, total: int, eta_seconds: float) -> None:
        assert answered <= total and eta_seconds >= 0
        self.answered.append(answered)

    def check(self) -> None:
        self.looks -= 1
        if self.looks < 0:
            raise KeyboardInterrupt


def run(tiny: Path, output: Path, watcher: Watching | None = None, **changes: Any) -> Evaluation:
    adapters = output / "adapters"
    if not adapters.exists():
        shutil.copytree(tiny / "adapters", adapters)
    spec = EvaluationSpec(
        **{"questions": str(tiny / "questions.jsonl"), "max_tokens": 6, **changes}
    )
    work = Work(1, str(tiny / "model"), output, str(tiny / "train.jsonl"), spec)
    return evaluate.evaluate(work, watcher or Watching())


def test_an_untrained_adapter_cannot_be_told_from_its_base(tiny: Path, tmp_path: Path) -> None:
    result = run(tiny, tmp_path)
    assert result.verdict.judgement == "unclear" and not result.weak
    assert [a.base for a in result.answers] == [a.adapter for a in result.answers]
    assert documents.read(tmp_path / "evaluation" / "evaluation.json", Evaluation) == result


def test_killed_at_any_moment_it_ends_with_the_same_answers_and_verdict(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "BATCH", 8)
    monkeypatch.setattr(evaluate, "general_questions", lambda: general_questions()[:12])
    watching = Watching()
    whole = run(tiny, tmp_path / "whole", watching, checkpoints=True, general=True)
    looks = (1 << 30) - watching.looks
    rng = random.Random(13)
    for number in range(6):
        output = tmp_path / str(number)
        killed = Watching(rng.randrange(looks))
        with pytest.raises(KeyboardInterrupt):
            run(tiny, output, killed, checkpoints=True, general=True)
        again = Watching()
        found = run(tiny, output, again, checkpoints=True, general=True)
        assert replace(found, adapter="", path="") == replace(whole, adapter="", path="")
        assert (1 << 30) - again.looks <= looks - len(killed.answered), "nothing is asked twice"


def test_questions_that_chose_the_adapter_do_not_judge_it(tiny: Path, tmp_path: Path) -> None:
    texts = [question["question"] for question in QUESTIONS]
    questions = read_questions(tiny / "questions.jsonl")
    ended, promoted = {"best": {"answered": 1}}, {"promoted": "checkpoint_epoch_0_step_1"}
    for number, (note, state) in enumerate(
        [(choosers.note_ending, ended), (choosers.note_comparison, promoted)]
    ):
        output = tmp_path / str(number)
        output.mkdir()
        training_state.write(output, TrainingState(1, "succeeded", "", **state))
        note(output / "evaluation", questions[:12])
        found = run(tiny, output)
        assert [one.question for one in found.answers] == texts[12:]
        (said,) = (one for one in found.findings if one.code == "evaluate.left_out")
        assert said.args == {"count": 12}
        note(output / "evaluation", questions)
        found = run(tiny, output)
        assert found.verdict.questions == len(texts), "no other question is left"
        assert "evaluate.chose_adapter" in [one.code for one in found.findings]
        training_state.write(output, TrainingState(1, "succeeded", ""))
        assert run(tiny, output).verdict.questions == len(texts), (
            "they chose no adapter that is there"
        )
        assert choosers.independent(questions, output) == (questions, ())


def test_an_adapter_of_broken_weights_is_named_as_damaged(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "general_questions", lambda: general_questions()[:6])
    save_new_adapter(tiny / "model", tmp_path / "adapters", math.nan)
    found = run(tiny, tmp_path, general=True)
    assert found.divergence == UNBOUNDED
    assert "evaluate.damaged" in [one.code for one in found.findings]
    assert documents.read(tmp_path / "evaluation" / "evaluation.json", Evaluation) == found


def test_a_model_that_was_exported_is_compared_with_its_base(tiny: Path, tmp_path: Path) -> None:
    found = run(tiny, tmp_path, folder=str(tiny / "model"))  # a fused adapter that changes nothing
    assert found.adapter == str(tiny / "model") and found.verdict.difference == 0
    assert [a.base for a in found.answers] == [a.adapter for a in found.answers]
    with pytest.raises(NotFound):
        run(tiny, tmp_path, folder=str(tmp_path / "evaluation"))


def test_an_untrained_adapter_forgets_nothing_and_does_not_diverge(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "general_questions", lambda: general_questions()[:6])
    found = run(tiny, tmp_path, general=True)
    assert found.general is not None and found.general.questions == 6
    assert abs(found.divergence) < 1e-5 and found.findings == ()


def test_batches_are_bounded_in_rows_and_in_tokens() -> None:
    prompts = [[1] * (10 + n % 7) for n in range(80)] + [[1] * 9000] * 2
    batches = list(answering.batched(prompts, 40))
    assert [p for _, batch in batches for p in batch] == prompts
    assert [place for place, _ in batches] == [0, 32, 64, 80, 81]


def test_it_tells_how_far_it_is(tiny: Path, tmp_path: Path) -> None:
    watching = Watching()
    run(tiny, tmp_path, watching)
    assert watching.phases == ["inspecting", "loading", "asking", "comparing"]
    assert watching.answered == [20, 40]


def test_an_answer_may_be_somewhat_longer_than_the_longest_that_was_trained(
    tiny: Path, tmp_path: Path
) -> None:
    found = run(tiny, tmp_path, max_tokens=0)
    assert max(len(answer.base) for answer in found.answers) > 6


def test_a_question_of_the_training_data_is_refused(tiny: Path, tmp_path: Path) -> None:
    leaked = tmp_path / "leaked.jsonl"
    lines = (tiny / "train.jsonl").read_text(encoding="utf-8").splitlines()[:2]
    leaked.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InvalidInput) as caught:
        run(tiny, tmp_path / "e", questions=str(leaked))
    assert caught.value.code == "evaluate.leaked"
    assert not (tmp_path / "e" / "evaluation").exists()


@pytest.mark.parametrize(
    "line",
    [
        "not JSON",
        "[]",
        '{"question": "Q?"}',
        '{"question": "", "answer": "A."}',
        '{"question": "Q?", "answer": "A.", "match": "telepathy"}',
        '{"question": "Q?", "answer": null}',
        '{"messages": [{"role": "assistant", "content": "A."}], "answer": "A."}',
        '{"question": "Q?", "answer": {"a": 1}, "match": "exact"}',
    ],
)
def test_a_line_that_is_no_question_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "Q?", "answer": "A."}\n' + line + "\n")
    with pytest.raises(InvalidInput, match="line 2"):
        read_questions(str(path))


def test_training_data_can_be_asked_and_the_limit_spreads(tmp_path: Path) -> None:
    path = tmp_path / "valid.jsonl"
    turns = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]
    records = [{"messages": turns}, {"prompt": "P?", "completion": "C."}] * 5
    path.write_text("\n".join(map(json.dumps, records)))
    asked = read_questions(str(path))
    assert (asked[0].text, asked[0].expected, asked[0].match) == ("Q?", ("A.",), "similarity")
    assert (asked[1].text, asked[1].expected) == ("P?", ("C.",))
    assert len(read_questions(str(path), 3)) == 3

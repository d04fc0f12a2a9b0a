"""Questions to a training: one at a time, within the plan's memory, and never all of the time."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import pytest

from safetrain_shared.paths import RunFolder
from safetraind.worker.inference.context_limit import answer_bytes, shape_of
from safetraind.worker.training import questions
from tests.ask.helpers import ask, only, text_of, user, wait_until


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(questions, "time", clock)
    return clock


@pytest.fixture
def desk_of(loaded, tmp_path):
    """Makes the desk of a training whose plan allows so many bytes; its phases are noted."""
    opened = []

    def make(memory_limit=0):
        phases: list[str] = []
        sink = SimpleNamespace(phase=phases.append, intent=lambda: "")
        task = SimpleNamespace(
            run=RunFolder(tmp_path),
            job=1,
            spec=SimpleNamespace(model="tiny"),
            plan=SimpleNamespace(memory_limit=memory_limit),
        )
        opened.append(questions.Questions(task, sink, loaded))
        return opened[-1], phases

    yield make
    for desk in opened:
        desk.__exit__()


def waiting(desk, count):
    asked = [ask(desk._server._path, max_tokens=2) for _ in range(count)]
    wait_until(lambda: desk._server._asked.qsize() == count)
    return asked


def test_between_two_steps_one_question_is_answered_however_many_wait(desk_of, clock):
    desk, phases = desk_of()
    asked = waiting(desk, 3)
    for step in (1, 2, 3):
        desk.answer(step)
        assert phases == ["answering"] * step
        clock.now += 1
    sources = [only(a.result(20), "source") for a in asked]
    assert sorted(source["step"] for source in sources) == [1, 2, 3]


def test_a_training_has_as_long_as_an_answer_took_before_the_next(desk_of, clock, monkeypatch):
    desk, phases = desk_of()
    waiting(desk, 2)
    answer = questions.answer

    def slow(*args, **kwargs):
        answer(*args, **kwargs)
        clock.now += 30

    monkeypatch.setattr(questions, "answer", slow)
    for step in range(1, 32):
        desk.answer(step)
        clock.now += 1
    assert phases == ["answering"] * 2
    third = waiting(desk, 1)
    desk.answer(40)
    assert len(phases) == 2 and not third[0].done()


def test_a_question_beyond_the_plans_memory_is_refused_with_a_sentence(desk_of, loaded):
    mx.eval(loaded.model.parameters())
    shape = shape_of(loaded.config, 4)
    desk, _ = desk_of(mx.get_active_memory() + answer_bytes(shape, 300))
    long, short = user("Qual foi a melhor classificação do Farense? " * 80), user()
    asked = ask(desk._server._path, messages=long)
    desk_answers(desk)
    error = only(asked.result(20), "error")
    assert error["code"] == "ask.prompt_too_long"
    assert 200 < error["args"]["limit"] < 600 < error["args"]["tokens"]
    asked = ask(desk._server._path, messages=short, max_tokens=5000)
    desk_answers(desk)
    done = only(asked.result(20), "done")
    assert text_of(asked.result())
    assert done["cut"] and done["prompt_tokens"] + done["tokens"] < 600


@pytest.mark.parametrize("limit", [0, 1 << 60])
def test_a_training_answers_no_longer_than_the_model_takes(desk_of, loaded, limit):
    most = loaded.config["max_position_embeddings"]
    desk, _ = desk_of(limit)
    asked = ask(desk._server._path, messages=user("Farense " * 2 * most))
    desk_answers(desk)
    error = only(asked.result(20), "error")
    assert (error["code"], error["args"]["limit"]) == ("ask.prompt_too_long", most - 1)


def desk_answers(desk):
    wait_until(lambda: desk._server._asked.qsize())
    desk._next = 0.0
    desk.answer(1)

"""A worker's socket: what is asked there is answered, and nothing that is done there does harm."""

from __future__ import annotations

import json
import socket
import stat

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import mlx_lm
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from safetrain_shared.messages import SENTENCES
from safetrain_shared.paths import RunFolder
from safetrain_shared.questions import AnswerReply
from safetraind.worker.inference import question_socket
from safetraind.worker.inference.question_socket import QuestionServer, answer
from safetraind.worker.loading import attach_adapter, load
from tests.ask.helpers import QUESTION, ask, exchange, only, text_of, user, wait_until

SOURCE = {"model": "tiny", "adapter": "", "step": 3, "training": True}


@pytest.fixture
def desk(tmp_path):
    desk = QuestionServer(RunFolder(tmp_path).socket)
    yield desk
    desk.close()


@pytest.fixture
def path(tmp_path):
    return RunFolder(tmp_path).socket


def answer_next(desk, loaded, **how):
    asker = desk.take(10)
    assert asker is not None
    try:
        answer(asker, loaded, SOURCE, **how)
    finally:
        desk.done_with(asker)


def replies_to(desk, path, loaded, **question):
    asked = ask(path, **question)
    answer_next(desk, loaded)
    return asked.result(30)


def greedy(model, tokenizer, max_tokens=12):
    prompt = tokenizer.apply_chat_template(user(), add_generation_prompt=True)
    return mlx_lm.generate(model, tokenizer, prompt, max_tokens=max_tokens)


def test_an_answer_streams_what_mlx_lm_generates(desk, path, loaded):
    replies = replies_to(desk, path, loaded)
    assert replies[0] == {"waiting": "queue"}
    assert replies[1] == {"source": SOURCE}
    assert text_of(replies) == greedy(loaded.model, loaded.tokenizer)
    assert [next(iter(r)) for r in replies].count("text") > 1
    done = only(replies, "done")
    assert replies[-1] == {"done": done}
    assert done["cut"] and done["tokens"] == 12
    assert 0 < done["seconds_to_first_token"] < 30
    assert done["tokens_per_second"] > 0
    prompt = loaded.tokenizer.apply_chat_template(user(), add_generation_prompt=True)
    assert done["prompt_tokens"] == len(prompt)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_base_answers_without_the_adapter_and_puts_it_back(desk, path, tiny_model, adapters, kind):
    bare, loaded = load(str(tiny_model)), load(str(tiny_model))
    attach_adapter(loaded.model, adapters[kind])
    layers = dict(loaded.model.named_modules())
    before = dict(tree_flatten(loaded.model.parameters()))
    adapted = text_of(replies_to(desk, path, loaded))
    base = text_of(replies_to(desk, path, loaded, base=True))
    assert base == greedy(bare.model, bare.tokenizer) != adapted
    after = dict(loaded.model.named_modules())
    assert layers.keys() == after.keys()
    assert all(after[name] is layer for name, layer in layers.items())
    weights = dict(tree_flatten(loaded.model.parameters()))
    assert all(weights[name] is value for name, value in before.items())
    assert text_of(replies_to(desk, path, loaded)) == adapted


def train(loaded, between, steps=4):
    """A plain LoRA training with dropout from the global random state; returns what decides on."""
    model = loaded.model
    mx.random.seed(11)
    model.freeze()
    linear_to_lora_layers(model, 2, {"rank": 4, "scale": 10.0, "dropout": 0.3})
    model.train()
    tokens = mx.array([loaded.tokenizer.encode(QUESTION)])

    def loss(model):
        return nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:], reduction="mean")

    optimizer = optim.AdamW(1e-2)
    step, losses = nn.value_and_grad(model, loss), []
    for _ in range(steps):
        value, gradients = step(model)
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)
        losses.append(value.item())
        between()
    state = {**dict(tree_flatten(model.trainable_parameters())), "random": mx.random.state[0]}
    return losses, state, {name: m.training for name, m in model.named_modules()}


def test_questions_in_mid_training_change_nothing_to_the_bit(desk, path, tiny_model):
    undisturbed = train(load(str(tiny_model)), lambda: None)
    loaded, answered = load(str(tiny_model)), []

    def between():
        questions = {"base": True}, {"temperature": 0.9, "top_p": 0.8, "seed": 3}, {}
        answered.extend(text_of(replies_to(desk, path, loaded, **q)) for q in questions)

    losses, state, modes = train(loaded, between)
    assert losses == undisturbed[0]
    assert modes == undisturbed[2]
    assert state.keys() == undisturbed[1].keys()
    assert all(mx.array_equal(state[k], v).item() for k, v in undisturbed[1].items())
    assert len(answered) == 12 and all(answered)
    assert len(set(answered[0::3])) == 1  # the base stays the same
    assert len(set(answered[2::3])) > 1  # the adapter learns


def test_the_same_seed_gives_the_same_answer_and_no_seed_a_new_one(desk, path, loaded):
    def answered(**question):
        return text_of(replies_to(desk, path, loaded, temperature=1.5, **question))

    assert answered(seed=5) == answered(seed=5)
    assert answered(seed=5) != answered(seed=6)
    assert len({answered() for _ in range(3)}) > 1


def test_several_turns_and_a_system_prompt_reach_the_model(desk, path, loaded):
    turns = [
        {"role": "system", "content": "Responde em português."},
        *user("Onde joga?"),
        {"role": "assistant", "content": "Em Faro."},
        *user("E as cores?"),
    ]
    done = only(replies_to(desk, path, loaded, messages=turns), "done")
    expected = loaded.tokenizer.apply_chat_template(turns, add_generation_prompt=True)
    assert done["prompt_tokens"] == len(expected)


def test_an_asker_that_leaves_in_mid_answer_is_dropped_and_the_next_is_served(
    desk, path, loaded, monkeypatch
):
    computed, kind = [], type(loaded.model)
    compute = kind.__call__

    def counted(*arguments, **named):
        computed.append(arguments[1].shape)
        return compute(*arguments, **named)

    monkeypatch.setattr(kind, "__call__", counted)
    with socket.socket(socket.AF_UNIX) as leaving:
        leaving.connect(str(path))
        leaving.sendall(json.dumps({"messages": user(), "max_tokens": 2000}).encode() + b"\n")
        asker = desk.take(10)
    answer(asker, loaded, SOURCE)
    desk.done_with(asker)
    assert 0 < len(computed) < 200, "most of the 2,000 tokens were not computed"
    assert text_of(replies_to(desk, path, loaded))


def test_an_asker_that_left_while_waiting_is_passed_over(desk, path, loaded):
    with socket.socket(socket.AF_UNIX) as leaving:
        leaving.connect(str(path))
        leaving.sendall(json.dumps({"messages": user()}).encode() + b"\n")
        leaving.recv(100)
    asked = ask(path, max_tokens=1)
    answer_next(desk, loaded)
    assert only(asked.result(30), "done")["tokens"] == 1
    assert desk.take() is None


def test_an_asker_that_does_not_read_holds_nothing_up(desk, path, monkeypatch):
    monkeypatch.setattr(question_socket, "SEND_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(str(path))
        deaf.sendall(json.dumps({"messages": user()}).encode() + b"\n")
        asker = desk.take(10)
        sent = [asker.send(AnswerReply(text="x" * 65536)) for _ in range(40)]
        assert sent[0] and not sent[-1]
    desk.done_with(asker)


BAD_LINES = {
    b"\n": "ask.malformed",
    b"not json\n": "ask.malformed",
    b"\xff\xfe\n": "ask.malformed",
    b"[1]\n": "ask.malformed",
    b"[" * 100_000 + b"\n": "ask.malformed",
    b'{"messages": "x"}\n': "ask.malformed",
    b'{"messages": [1]}\n': "ask.malformed",
    b'{"messages": [{"role": "root", "content": "x"}]}\n': "ask.malformed",
    b'{"messages": [{"role": "user", "content": 1}]}\n': "ask.malformed",
    b'{"messages": [{"role": "user", "content": "\\ud800"}]}\n': "ask.malformed",
    b'{"messages": []}\n': "ask.no_question",
    b'{"messages": [{"role": "assistant", "content": "x"}]}\n': "ask.no_question",
    b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": -1}\n': "ask.out_of_range",
    b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": true}\n': "ask.malformed",
    b'{"messages": [{"role": "user", "content": "x"}], "top_p": 2}\n': "ask.out_of_range",
    b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}\n': "ask.out_of_range",
    b'{"messages": [{"role": "user", "content": "x"}], "seed": -5}\n': "ask.out_of_range",
    b"x" * (question_socket.MAX_REQUEST_BYTES + 1): "message.too_large",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: repr(line[-40:]))
def test_what_is_no_question_is_refused_with_a_sentence(desk, path, line):
    error = only(exchange(path, line), "error")
    assert error["code"] == BAD_LINES[line]
    assert error["code"] in SENTENCES
    assert error["class"] == "InvalidInput"
    assert desk.take() is None


def test_connections_that_never_speak_lose_their_place(tmp_path, loaded, monkeypatch):
    monkeypatch.setattr(question_socket, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(question_socket, "READ_SECONDS", 0.3)
    desk, silent = QuestionServer(tmp_path / "s"), []
    for _ in range(2):
        silent.append(socket.socket(socket.AF_UNIX))
        silent[-1].connect(str(tmp_path / "s"))
    assert text_of(replies_to(desk, tmp_path / "s", loaded))
    assert [connection.recv(10) for connection in silent] == [b"", b""]
    for connection in silent:
        connection.close()
    desk.close()


def test_a_full_house_can_be_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(question_socket, "MAX_CONNECTIONS", 1)
    desk = QuestionServer(tmp_path / "s")
    asked = ask(tmp_path / "s")
    wait_until(lambda: desk._asked.qsize() == 1)
    desk.close()
    assert only(asked.result(10), "error")["code"] == "ask.worker_ended"


def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(desk, path, loaded):
    asked = ask(path)
    answer_next(desk, loaded, context=10)
    error = only(asked.result(30), "error")
    prompt = loaded.tokenizer.apply_chat_template(user(), add_generation_prompt=True)
    assert error["code"] == "ask.prompt_too_long"
    assert error["args"] == {"tokens": len(prompt), "limit": 9}


def test_an_answer_ends_where_the_context_does(desk, path, loaded):
    asked = ask(path, max_tokens=1000)
    prompt = loaded.tokenizer.apply_chat_template(user(), add_generation_prompt=True)
    answer_next(desk, loaded, context=len(prompt) + 5)
    done = only(asked.result(30), "done")
    assert (done["tokens"], done["cut"]) == (5, True)


def test_an_answer_that_comes_to_its_end_is_not_cut(desk, path, loaded):
    prompt = loaded.tokenizer.apply_chat_template(user(), add_generation_prompt=True)
    steps = mlx_lm.stream_generate(loaded.model, loaded.tokenizer, prompt, max_tokens=9)
    tokens = [step.token for step in steps]
    loaded.tokenizer.eos_token_ids = {tokens[5]}
    done = only(replies_to(desk, path, loaded, max_tokens=50), "done")
    assert (done["tokens"], done["cut"]) == (tokens.index(tokens[5]), False)


def test_stop_ends_an_answer_after_the_token_in_progress(desk, path, loaded):
    asked = ask(path, max_tokens=1000)
    answer_next(desk, loaded, stop=lambda: True)
    done = only(asked.result(30), "done")
    assert (done["tokens"], done["cut"]) == (1, True)


def test_those_who_still_wait_at_the_end_are_told(path, tmp_path):
    desk = QuestionServer(path)
    waiting = [ask(path) for _ in range(3)]
    wait_until(lambda: desk._asked.qsize() == 3)
    desk.close()
    assert [only(w.result(10), "error")["code"] for w in waiting] == ["ask.worker_ended"] * 3
    assert not path.exists()
    assert "ask.worker_ended" in SENTENCES


def test_memory_that_ran_out_ends_the_worker_and_any_other_failure_only_the_answer(
    desk, path, loaded, monkeypatch
):
    def failing(error):
        def generate(*_args, **_kwargs):
            raise error
            yield

        monkeypatch.setattr(question_socket, "generate", generate)
        return ask(path)

    asked = failing(RuntimeError("[metal] out of memory"))
    with pytest.raises(RuntimeError):
        answer_next(desk, loaded)
    assert only(asked.result(10), "error")["code"] == "ask.failed"
    asked = failing(KeyError(QUESTION))
    answer_next(desk, loaded)
    error = only(asked.result(10), "error")
    assert error == {"class": "Broken", "code": "ask.failed", "args": {"reason": "KeyError"}}


def test_the_socket_is_its_owners_alone_and_replaces_a_stale_one(path):
    path.touch()
    desk = QuestionServer(path)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    desk.close()


def test_a_question_shows_its_words_in_no_log(desk, path):
    asked = ask(path)
    asker = desk.take(10)
    assert "Farense" not in repr(asker.question)
    desk.done_with(asker)
    asked.result(10)

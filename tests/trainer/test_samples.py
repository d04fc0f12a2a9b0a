"""From JSONL to mapped tokens: what is learned, cut, left out and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.utils import load_tokenizer

from safetrain_shared.errors import InvalidInput
from safetrain_shared.events import Notice, Outcome, StepDone
from safetraind.worker.corpus.chat import Encoded, encode_file
from safetraind.worker.training import dataset
from tests.trainer.runs import make_run

Data = tuple[Path, Path]


def lines(path: Path, *samples: Any) -> str:
    path.write_text("".join(f"{json.dumps(s)}\n" for s in samples), encoding="utf-8")
    return str(path)


def said(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Any:
    return load_tokenizer(model)


def learned_text(sample: Encoded, tokenizer: Any) -> str:
    chosen = [t for t, wanted in zip(sample.tokens, sample.learned, strict=True) if wanted]
    return str(tokenizer.decode(chosen))


def test_all_turns_of_the_assistant_are_learned_and_nothing_else(
    tmp_path: Path, tokenizer: Any
) -> None:
    sample = said(("user", "a?"), ("assistant", "b."), ("user", "c?"), ("assistant", "d."))
    (found,) = encode_file(lines(tmp_path / "x", sample), tokenizer, True)
    assert learned_text(found, tokenizer) == "b.<|im_end|>\nd.<|im_end|>\n"


def test_without_the_mask_everything_is_learned(tmp_path: Path, tokenizer: Any) -> None:
    sample = said(("user", "a?"), ("assistant", "b."))
    (found,) = encode_file(lines(tmp_path / "x", sample), tokenizer, False)
    assert all(found.learned)


def test_completions_and_plain_text_are_samples_too(tmp_path: Path, tokenizer: Any) -> None:
    path = lines(tmp_path / "x", {"prompt": "a?", "completion": "b."}, {"text": "Faro"})
    completion, text = encode_file(path, tokenizer, True)
    assert learned_text(completion, tokenizer) == "b.<|im_end|>\n"
    assert learned_text(text, tokenizer) == "Faro<|im_end|>"
    assert text.tokens[-1] == tokenizer.eos_token_id


def test_a_template_that_rewrites_earlier_turns_still_marks_the_answers(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like those that drop a question's context once it is answered: the common part decides."""
    template = (
        "{% for m in messages %}{% if m.role == 'user' and not loop.last %}Q{% elif m.role == "
        "'user' %}{{ m.content }}{% else %}A{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}A{% endif %}"
    )
    monkeypatch.setattr(tokenizer._tokenizer, "chat_template", template)
    sample = said(("user", "x?"), ("assistant", "b."))
    (found,) = encode_file(lines(tmp_path / "x", sample), tokenizer, True)
    assert learned_text(found, tokenizer).endswith("b.<|im_end|>")


@pytest.mark.parametrize("bad", ['{"messages": []}', "{", '{"other": 1}', '{"messages": "x"}'])
def test_a_line_without_a_sample_is_named(bad: str, tmp_path: Path, tokenizer: Any) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(f"{json.dumps(said(('user', 'a'), ('assistant', 'b')))}\n\n{bad}\n")
    with pytest.raises(InvalidInput) as caught:
        list(encode_file(str(file), tokenizer, True))
    assert (caught.value.code, caught.value.args_by_name["line"]) == ("train.bad_sample", 3)


def test_the_tokenized_file_is_mapped_and_holds_the_samples(tmp_path: Path) -> None:
    made = [Encoded(n, list(range(n, n + 5)), [False, True, False, True, True]) for n in range(9)]
    samples = dataset.write(tmp_path / "t", iter(made), 4, {"of": 1})
    assert len(samples) == 9
    tokens, learned = samples.tokens(3)
    assert tokens.tolist() == [3, 4, 5, 6]
    assert learned.tolist() == [False, True, False, True]
    assert (samples.line(3), samples.cut, samples.left_out) == (3, 9, 0)
    assert "memmap" in type(samples._words).__name__
    assert dataset.stored(tmp_path / "t", {"of": 1}) is not None
    assert dataset.stored(tmp_path / "t", {"of": 2}) is None


def test_samples_with_nothing_left_to_learn_are_left_out_and_counted(tmp_path: Path) -> None:
    made = [
        Encoded(1, [1, 2, 3, 4], [False, False, False, True]),  # its answer is cut away
        Encoded(2, [1, 2], [True, False]),  # the first token is never predicted
        Encoded(3, [1, 2], [False, True]),
    ]
    samples = dataset.write(tmp_path / "t", made, 3, {})
    assert (len(samples), samples.left_out) == (1, 2)


def test_a_run_tells_how_many_samples_it_left_out(tmp_path: Path, model: Path, data: Data) -> None:
    long = lines(tmp_path / "x", said(("user", "a " * 300), ("assistant", "b.")))
    train = tmp_path / "train.jsonl"
    train.write_text(Path(long).read_text() + data[0].read_text())
    run = make_run(tmp_path / "run", model, (train, data[1]), num_epochs=1)
    assert run.finish().outcome == "succeeded"
    notices = [n.finding for n in run.of(Notice)]
    assert [(f.code, f.args["count"]) for f in notices] == [("train.left_out", 1)]
    assert run.json("training_summary.json")["samples_left_out"] == 1


def test_tokens_are_made_once(tmp_path: Path, model: Path, data: Data) -> None:
    run = make_run(tmp_path, model, data, num_epochs=1)
    run.finish()
    tokens = run.folder.root / "tokens" / "train" / "tokens.bin"
    before = tokens.stat().st_mtime_ns
    run.finish(attempt=2)
    assert tokens.stat().st_mtime_ns == before


def failed(run: Any) -> tuple[str, dict[str, Any]]:
    outcome: Outcome = run.finish()
    assert outcome.outcome == "failed"
    assert outcome.cause is not None
    assert "Traceback" not in run.folder.log.read_text()
    return outcome.cause.code, dict(outcome.cause.args)


def test_data_that_changed_since_it_was_submitted_is_refused(
    tmp_path: Path, model: Path, data: Data
) -> None:
    train = tmp_path / "train.jsonl"
    train.write_bytes(data[0].read_bytes())
    run = make_run(tmp_path / "run", model, (train, data[1]))
    with train.open("a") as file:
        file.write("{}\n")
    assert failed(run) == ("job.data_changed", {"path": str(train)})


def test_data_that_is_gone_is_named(tmp_path: Path, model: Path, data: Data) -> None:
    train = tmp_path / "train.jsonl"
    train.write_bytes(data[0].read_bytes())
    run = make_run(tmp_path / "run", model, (train, data[1]))
    train.unlink()
    assert failed(run)[0] == "path.missing"


def test_a_file_with_nothing_to_train_is_named(tmp_path: Path, model: Path, data: Data) -> None:
    train = lines(tmp_path / "x.jsonl", said(("user", "a " * 500), ("assistant", "b.")))
    run = make_run(tmp_path / "run", model, (Path(train), data[1]))
    assert failed(run)[0] == "train.no_samples"


def test_unknown_layers_to_train_are_named(tmp_path: Path, model: Path, data: Data) -> None:
    run = make_run(tmp_path, model, data, lora_targets=("no.such",))
    assert failed(run) == ("train.no_targets", {"targets": "no.such"})


def test_a_learning_rate_that_is_too_high_is_blamed_and_nothing_is_spoilt(
    tmp_path: Path, model: Path, data: Data
) -> None:
    run = make_run(tmp_path, model, data, learning_rate=1e18, max_grad_norm=0.0, save_steps=1)
    code, args = failed(run)
    assert (code, args["rate"]) == ("train.non_finite_weights", 1e18)
    assert args["step"] == len(run.of(StepDone))
    assert run.json("training_state.json")["state"] == "failed"


def test_a_sample_that_the_base_model_cannot_compute_is_blamed(
    tmp_path: Path, model: Path, data: Data
) -> None:
    broken = tmp_path / "model"
    shutil.copytree(model, broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    weights = dict(mx.load(str(broken / "model.safetensors")))
    embedding = weights["model.embed_tokens.weight"]
    (word,) = load_tokenizer(broken).encode("$")
    weights["lm_head.weight"] = embedding + 0
    weights["model.embed_tokens.weight"] = mx.where(
        (mx.arange(len(embedding)) == word)[:, None], mx.nan, embedding
    )
    mx.save_safetensors(str(broken / "model.safetensors"), weights, {"format": "mlx"})
    train = tmp_path / "train.jsonl"
    bad = json.dumps(said(("user", "Custa 5 $?"), ("assistant", "Sim.")))
    train.write_text(data[0].read_text() + bad + "\n")
    code, args = failed(make_run(tmp_path / "run", broken, (train, data[1])))
    assert (code, args["line"]) == ("train.non_finite_sample", 23)

"""From JSONL to mapped tokens: what is learned, cut, left out and refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlx_lm.utils import load_tokenizer

from safetrain_shared.errors import InvalidInput
from safetrain_shared.events import Evaluated, Notice, Outcome
from safetrain_shared.findings import Finding
from safetraind.storage import durable, manifest
from safetraind.worker.data.encode_chat import Encoded, Encoder
from safetraind.worker.data.reservoir_sample import ReservoirSample
from safetraind.worker.data.scan import Scan
from safetraind.worker.data.token_lengths import count
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
    (found,) = Encoder(tokenizer, True).encode_file(lines(tmp_path / "x", sample))
    assert learned_text(found, tokenizer) == "b.<|im_end|>\nd.<|im_end|>\n"


def test_without_the_mask_everything_is_learned(tmp_path: Path, tokenizer: Any) -> None:
    sample = said(("user", "a?"), ("assistant", "b."))
    (found,) = Encoder(tokenizer, False).encode_file(lines(tmp_path / "x", sample))
    assert all(found.learned)


def test_completions_and_plain_text_are_samples_too(tmp_path: Path, tokenizer: Any) -> None:
    path = lines(tmp_path / "x", {"prompt": "a?", "completion": "b."}, {"text": "Faro"})
    completion, text = Encoder(tokenizer, True).encode_file(path)
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
    (found,) = Encoder(tokenizer, True).encode_file(lines(tmp_path / "x", sample))
    assert learned_text(found, tokenizer).endswith("b.<|im_end|>")


_DEEP = '{"messages": [{"role": ' + "[" * 1000 + "]" * 1000 + "}]}"


@pytest.mark.parametrize(
    "bad", ['{"messages": []}', "{", '{"other": 1}', '{"messages": "x"}', _DEEP]
)
def test_a_line_without_a_sample_is_named(bad: str, tmp_path: Path, tokenizer: Any) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(f"{json.dumps(said(('user', 'a'), ('assistant', 'b')))}\n\n{bad}\n")
    with pytest.raises(InvalidInput) as caught:
        list(Encoder(tokenizer, True).encode_file(str(file)))
    assert (caught.value.code, caught.value.args_by_name["line"]) == ("train.bad_sample", 3)


@pytest.fixture
def picky(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A tokenizer whose template refuses a word."""
    refusing = (
        "{% for m in messages %}{% if 'unwanted' in m.content %}"
        "{{ raise_exception('no such word') }}{% endif %}{% endfor %}"
    )
    template = refusing + str(tokenizer.chat_template)
    monkeypatch.setattr(tokenizer._tokenizer, "chat_template", template)
    return tokenizer


def in_parts(content: str) -> dict[str, Any]:
    """A good sample of an unusual form."""
    parts = [{"type": "text", "text": content}]
    return {"messages": [{"role": "user", "content": parts}, *said(("assistant", "b"))["messages"]]}


def test_a_sample_that_the_template_refuses_is_named(tmp_path: Path, picky: Any) -> None:
    file = lines(tmp_path / "x", said(("user", "a"), ("assistant", "b")), in_parts("unwanted"))
    with pytest.raises(InvalidInput) as caught:
        list(Encoder(picky, True).encode_file(file))
    assert caught.value.code == "train.template_refuses"
    args = caught.value.args_by_name
    assert (args["path"], args["line"]) == (file, 2) and args["reason"] == "no such word"


def test_the_first_odd_samples_are_tried_whatever_else_is_drawn(tmp_path: Path, picky: Any) -> None:
    plain = [said(("user", f"a{n}"), ("assistant", "a long answer")) for n in range(200)]
    file = lines(tmp_path / "x", *plain[:100], in_parts("unwanted"), *plain[100:])
    scan = Scan(file, draw=ReservoirSample(_size=4))
    assert [f for f in scan.run() if isinstance(f, Finding)] == []
    assert all(line.number != 101 for line in scan.draw)
    lengths = count(scan.draw, Encoder(picky))
    assert (lengths.failed, lengths.line, lengths.reason) == (1, 101, "no such word")
    assert sum(lengths.tokens.values()) == 4


def test_the_tokenized_file_is_mapped_and_holds_the_samples(tmp_path: Path) -> None:
    made = [Encoded(n, list(range(n, n + 5)), [False, True, False, True, True]) for n in range(9)]
    samples = dataset.write(tmp_path / "t", iter(made), 4, {"of": 1})
    assert len(samples) == 9
    tokens, learned = samples.tokens(3)
    assert tokens.tolist() == [3, 4, 5, 6]
    assert learned.tolist() == [False, True, False, True]
    assert (samples.line(3), samples.cut, samples.left_out) == (3, 9, 0)
    assert "memmap" in type(samples._words).__name__
    assert dataset.stored(tmp_path / "t", {"of": 1}, 4) is not None
    assert dataset.stored(tmp_path / "t", {"of": 2}, 4) is None


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


def test_a_run_tells_how_much_of_its_validation_it_left_out(
    tmp_path: Path, model: Path, data: Data
) -> None:
    valid = tmp_path / "valid.jsonl"
    long = lines(tmp_path / "x", said(("user", "a " * 300), ("assistant", "b.")))
    valid.write_text(Path(long).read_text() + data[1].read_text())
    run = make_run(tmp_path / "run", model, (data[0], valid), num_epochs=1)
    assert run.finish().outcome == "succeeded"
    notices = [n.finding for n in run.of(Notice)]
    assert [(f.code, f.args["count"]) for f in notices] == [("train.left_out_of_validation", 1)]
    summary = run.json("training_summary.json")
    assert (summary["validation_samples"], summary["validation_samples_left_out"]) == (6, 1)


def test_a_run_tells_that_nothing_of_its_validation_is_left(
    tmp_path: Path, model: Path, data: Data
) -> None:
    valid = lines(tmp_path / "x", said(("user", "a " * 300), ("assistant", "b.")))
    run = make_run(tmp_path / "run", model, (data[0], Path(valid)), num_epochs=1)
    assert run.finish().outcome == "succeeded"
    notices = [n.finding for n in run.of(Notice)]
    assert [(f.code, f.args["path"]) for f in notices] == [("train.no_evaluation", valid)]
    assert run.of(Evaluated) == []
    assert run.adapter() == run.adapter(run.checkpoints()[-1])


def test_tokens_are_made_once(tmp_path: Path, model: Path, data: Data) -> None:
    run = make_run(tmp_path, model, data, num_epochs=1)
    run.finish()
    tokens = run.folder.root / "tokens" / "train" / "tokens.bin"
    before = tokens.stat().st_mtime_ns
    run.finish(attempt=2)
    assert tokens.stat().st_mtime_ns == before


def zeroed(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-16])


@pytest.mark.parametrize("harm", [zeroed, cut_short, Path.unlink])
@pytest.mark.parametrize("name", ["tokens.bin", "index.npy", "manifest.json"])
def test_tokens_that_are_damaged_are_not_used(
    name: str, harm: Callable[[Path], None], tmp_path: Path
) -> None:
    made = [Encoded(n, list(range(n, n + 5)), [True] * 5) for n in range(9)]
    dataset.write(tmp_path / "t", made, 4, {})
    harm(tmp_path / "t" / name)
    assert dataset.stored(tmp_path / "t", {}, 4) is None


def test_tokens_are_on_the_disk_before_what_vouches_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(manifest, "sync", lambda fd: synced.append(os.fstat(fd).st_ino))
    monkeypatch.setattr(durable, "sync", manifest.sync)
    dataset.write(tmp_path / "t", [Encoded(1, [1, 2], [True, True])], 4, {})
    tokens, index, vouching = (
        (tmp_path / "t" / name).stat().st_ino
        for name in ("tokens.bin", "index.npy", "manifest.json")
    )
    assert {tokens, index} <= set(synced[: synced.index(vouching)])


def test_a_run_whose_tokens_are_damaged_makes_them_again(
    tmp_path: Path, model: Path, data: Data
) -> None:
    run = make_run(tmp_path, model, data, num_epochs=1)
    run.finish()
    tokens = run.folder.root / "tokens" / "train" / "tokens.bin"
    whole = tokens.read_bytes()
    zeroed(tokens)
    assert run.finish(attempt=2).outcome == "succeeded"
    assert tokens.read_bytes() == whole


def test_samples_can_be_read_shorter_and_keep_their_numbers(tmp_path: Path) -> None:
    made = [
        Encoded(1, [1, 2, 3, 4, 5], [False, True, True, True, True]),
        Encoded(2, [1, 2, 3, 4], [False, False, False, True]),
        Encoded(3, [1, 2], [False, True]),
    ]
    dataset.write(tmp_path / "t", made, 4, {})
    shorter = dataset.Samples(tmp_path / "t", 3)
    assert shorter.usable.tolist() == [True, False, True]
    assert shorter.lengths.tolist() == [3, 3, 2]
    assert shorter.tokens(0)[0].tolist() == [1, 2, 3]
    assert (shorter.line(2), shorter.cut, shorter.left_out) == (3, 1, 1)


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

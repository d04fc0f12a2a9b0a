"""Broken data and broken model folders: a sentence each time, and nothing learned that isn't said.

`make fuzz` tries many more than a run of the tests does.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlx_lm.utils import load_tokenizer

from safetrain_shared.errors import SafetrainError
from safetrain_shared.findings import Finding, Status
from safetrain_shared.messages import say
from safetrain_shared.printable import printable
from safetraind.models.model_config import read_model
from safetraind.worker.data.encode_chat import Encoder, Refused
from safetraind.worker.data.scan import Scan
from safetraind.worker.data.schema import Unusable, form_of, is_learned, judge, parse
from safetraind.worker.loading import load
from tests.tiny import CHAT_TEMPLATE, make_tiny_model
from tests.trials import inputs

LINES = int(os.environ.get("SAFETRAIN_FUZZ_LINES", "300"))
FOLDERS = int(os.environ.get("SAFETRAIN_FUZZ_FOLDERS", "40"))

_TEXTS = [
    "",
    " ",
    "one",
    "two words",
    "<|im_end|>",
    "<think>x</think>y",
    "\x1b[2J",
    "\u202e",
    "ção",
]
_ODD: list[Any] = [None, 0, 1, 0.5, True, [], {}, [1], {"a": 1}, "x" * 300, -1, 1e300]
_TEMPLATES = [CHAT_TEMPLATE, inputs.HIDES_THINKING, inputs.OPENS_THINKING, inputs.TOOLS]
_TEMPLATES += [inputs.DROPS_SYSTEM, inputs.PYTHON_TOOLS, inputs.NO_END]


def sample(draw: random.Random) -> Any:
    """A sample, mostly of a known form, in which here and there something is wrong."""
    if draw.random() < 0.2:
        return {"text": draw.choice(_TEXTS + _ODD)}
    roles = ["system"] * (draw.random() < 0.3) + ["user", "assistant"] * draw.randint(1, 3)
    messages: list[Any] = []
    for role in roles:
        message: dict[str, Any] = {"role": role, "content": draw.choice(_TEXTS)}
        if draw.random() < 0.1:
            message["content"] = [{"type": "text", "text": draw.choice(_TEXTS)}] * 2
        if role == "assistant" and draw.random() < 0.3:
            arguments = draw.choice([{"a": 1, "b": [None, "x"]}, '{"a": 1}', "no object"])
            message["tool_calls"] = [{"function": {"name": "call", "arguments": arguments}}]
        if draw.random() < 0.1:
            message[draw.choice(["weight", "train", "mask", "content", "role"])] = draw.choice(_ODD)
        messages.append(message if draw.random() < 0.97 else draw.choice(_ODD))
    made: dict[str, Any] = {"messages": messages}
    if draw.random() < 0.1:
        made[draw.choice(["tools", "loss_weight", "text", "messages"])] = draw.choice(_ODD)
    return made


@pytest.mark.timeout(3600)
def test_every_line_is_learned_as_it_says_or_told(tmp_path: Path) -> None:
    draw = random.Random(11)
    tokenizer = load_tokenizer(make_tiny_model(tmp_path / "m"), eos_token_ids=[2])
    learned_somewhere = 0
    for number in range(LINES):
        content = bytearray(json.dumps(sample(draw), ensure_ascii=False).encode())
        if draw.random() < 0.15:
            content[draw.randrange(len(content))] = draw.randrange(256)
        tokenizer._tokenizer.chat_template = draw.choice(_TEMPLATES)
        try:
            parsed = parse(bytes(content))
            form = form_of(parsed)
        except Unusable:
            continue
        if any(problem.status is Status.FAILED for problem in judge(parsed, form)):
            continue
        try:
            found = Encoder(tokenizer, vocabulary=512).encode(number, parsed, form)
        except Refused as error:
            assert printable(str(error)) == str(error)
            continue
        check_told(parsed, form, found, tokenizer)
        learned_somewhere += any(found.learned)
    assert learned_somewhere > LINES // 6  # not everything may be broken


def check_told(parsed: Any, form: str, found: Any, tokenizer: Any) -> None:
    """Each answer that is to be learned is, or a problem is told; and no other answer is."""
    assert len(found.tokens) == len(found.learned)
    for problem in found.problems:
        text = say(Finding(problem.code, args=dict(problem.args)), lang="en")
        assert printable(text) == text
    if form == "text" or found.problems:
        return
    pairs = zip(found.tokens, found.learned, strict=True)
    learned = " ".join(str(tokenizer.decode([t for t, wanted in pairs if wanted])).split())
    for message in parsed["messages"]:
        if message["role"] == "assistant" and is_learned(message):
            content = message.get("content")
            parts = [p["text"] for p in content] if isinstance(content, list) else [content or ""]
            said = " ".join("".join(parts).split("</think>")[-1].split())
            assert said in learned, (message, learned)


def test_every_file_is_read_to_its_end(tmp_path: Path) -> None:
    draw = random.Random(5)
    for number in range(LINES // 10):
        lines = [json.dumps(sample(draw)) for _ in range(draw.randint(0, 6))]
        content = bytearray("\n".join(lines).encode() or b" ")
        for _ in range(draw.randint(0, 4)):
            content[draw.randrange(len(content))] = draw.choice([0, 10, 13, 34, 91, 123, 255])
        file = tmp_path / f"{number}.jsonl"
        file.write_bytes(content)
        for problem in Scan(str(file)).run():
            if isinstance(problem, Finding):
                assert printable(say(problem)) == say(problem)


def broken(draw: random.Random, file: Path) -> None:
    """Harms one file of a model's folder in one of the ways of disks, downloads and people."""
    content = bytearray(file.read_bytes())
    match draw.randrange(6):
        case 0:
            file.unlink()
        case 1:
            file.write_bytes(content[: draw.randrange(len(content))])
        case 2:
            content[draw.randrange(min(len(content), 4096))] ^= 1 << draw.randrange(8)
            file.write_bytes(content)
        case 3:
            file.write_bytes(draw.choice([b"", b"[]", b"{}", b"null", b"[" * 9999, b"\x1b[2J"]))
        case 4 if file.suffix == ".json":
            value = json.loads(content)
            value[draw.choice(sorted(value))] = draw.choice([*_ODD, *_TEXTS])
            file.write_text(json.dumps(value))
        case _:
            file.unlink()
            file.mkdir()


@pytest.mark.timeout(3600)
def test_every_broken_model_folder_loads_or_is_named(tmp_path: Path) -> None:
    draw = random.Random(3)
    model = make_tiny_model(tmp_path / "m", layers=1, hidden=32, vocab=320)
    names = sorted(file.name for file in model.iterdir())
    for number in range(FOLDERS):
        folder = tmp_path / str(number)
        shutil.copytree(model, folder)
        broken(draw, folder / draw.choice(names))
        facts = read_model("m", folder)
        assert printable(facts.reason) == facts.reason
        try:
            load(str(folder), dequantize=False)
        except SafetrainError as error:
            assert printable(str(error)) == str(error)
        shutil.rmtree(folder)

"""What stands in two files: found whatever the words are, in bounded time and memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from safetrain_shared.findings import Finding
from safetraind.worker.data import duplicate_index, near_duplicates
from safetraind.worker.data.duplicate_index import Leakage
from safetraind.worker.data.line_reader import MAX_LINE_BYTES
from safetraind.worker.data.near_duplicates import in_order
from safetraind.worker.data.scan import Scan

PEAK = 200_000_000
# The worker, which prints its peak at its end. On Linux ru_maxrss would be that of this process
# where it is larger: it outlives the exec.
MEASURED = """
import atexit, re, resource, runpy, sys

def peak():
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

atexit.register(lambda: print(peak()))
runpy.run_module("safetraind.worker", run_name="__main__", alter_sys=True)
"""


def text(said: str) -> dict[str, Any]:
    return {"text": said}


def chat(*said: str, **first: Any) -> dict[str, Any]:
    roles = ("system", "user", "assistant")[-len(said) :]
    messages = [{"role": role, "content": s} for role, s in zip(roles, said, strict=True)]
    return {"messages": messages} | first


def write(path: Path, samples: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(s, ensure_ascii=False)}\n" for s in samples), "utf-8")
    return path


def found(folder: Path, valid: Sequence[dict[str, Any]], train: Sequence[dict[str, Any]]) -> Scan:
    """The scan of `train`, compared with `valid`."""
    leakage = Leakage()
    for _ in Scan(str(write(folder / "valid.jsonl", valid)), indexing=leakage).run():
        pass
    leakage.freeze()
    scan = Scan(str(write(folder / "train.jsonl", train)), leakage=leakage)
    for _ in scan.run():
        pass
    return scan


def near_leaks(folder: Path, valid: Sequence[str], train: Sequence[str]) -> int:
    scan = found(folder, [text(t) for t in valid], [text(t) for t in train])
    assert scan.counts["data.leak"] == 0
    return scan.counts["data.near_leak"]


def changed(words: Sequence[str], count: int, draw: random.Random) -> str:
    places = draw.sample(range(len(words)), count)
    return " ".join(f"other{n}" if n in places else word for n, word in enumerate(words))


def test_a_template_with_other_words_in_its_slots_is_nearly_the_same(tmp_path: Path) -> None:
    def filled(number: int) -> str:
        return " ".join(f"s{number}-{n}" if n in (5, 20, 33) else f"w{n}" for n in range(40))

    valid = [filled(n) for n in range(100)]
    assert near_leaks(tmp_path, valid, [filled(n) for n in range(1000, 1100)]) == 100


@pytest.mark.parametrize(("count", "share"), [(1, 1.0), (4, 1.0), (5, 0.0)])
def test_few_different_words_hide_no_leak(tmp_path: Path, count: int, share: float) -> None:
    draw = random.Random(0)
    vocabulary = [f"w{n}" for n in range(60)]
    words = [draw.choices(vocabulary, k=40) for _ in range(1000)]
    train = [changed(w, count, draw) for w in words]
    assert near_leaks(tmp_path, [" ".join(w) for w in words], train) == share * len(words)


def test_words_put_in_and_left_out_hide_no_leak(tmp_path: Path) -> None:
    draw = random.Random(0)
    words = [[f"w{draw.randrange(5000)}" for _ in range(100)] for _ in range(100)]
    left_out = [" ".join(w[:n] + w[n + 9 :]) for n, w in enumerate(words, 1) if n < 90]
    put_in = [" ".join([*w[:50], *(f"more{n}" for n in range(10)), *w[50:]]) for w in words]
    train = left_out + put_in
    assert near_leaks(tmp_path, [" ".join(w) for w in words], train) == len(train)


def test_scripts_without_spaces_are_compared_by_their_characters(tmp_path: Path) -> None:
    draw = random.Random(0)
    said = ["".join(chr(0x4E00 + draw.randrange(3000)) for _ in range(60)) for _ in range(50)]
    nearly = [f"{t[:20]}改{t[21:40]}新{t[41:]}" for t in said]
    unlike = ["".join(draw.sample(t, len(t))) for t in said]
    assert near_leaks(tmp_path, said, nearly + unlike) == len(nearly)


def test_what_the_system_says_makes_no_two_samples_alike(tmp_path: Path) -> None:
    system = " ".join(f"rule{n}" for n in range(200))
    valid = [chat(system, f"Where is {n}?", " ".join(f"a{n}{k}" for k in range(9))) for n in "abc"]
    train = [chat(system, f"Where is {n}?", " ".join(f"a{n}{k}" for k in range(9))) for n in "def"]
    scan = found(tmp_path, valid, [*train, valid[1]])
    assert (scan.counts["data.near_leak"], scan.counts["data.leak"]) == (0, 1)


def test_samples_that_call_a_tool_otherwise_are_not_the_same(tmp_path: Path) -> None:
    def calling(city: str, number: int) -> dict[str, Any]:
        function = {"name": "weather", "arguments": {"city": city}}
        call = {"id": f"call{number}", "type": "function", "function": function}
        answer = {"role": "assistant", "content": None, "tool_calls": [call]}
        return {"messages": [{"role": "user", "content": "Is it raining?"}, answer]}

    samples = [calling("Paris", 1), calling("London", 2), calling("Paris", 3)]
    scan = Scan(str(write(tmp_path / "a.jsonl", samples)))
    repeats = [f for f in scan.run() if isinstance(f, Finding)]
    assert [(f.code, f.args["line"], f.args["first"]) for f in repeats] == [
        ("data.duplicate", 3, 1)
    ]


def test_repetitive_texts_are_compared_in_no_time(tmp_path: Path) -> None:
    def seconds(length: int) -> float:
        (folder := tmp_path / str(length)).mkdir()
        began = time.process_time()
        assert near_leaks(folder, ["a b " * length] * 3, [f"c {'a b ' * length}"] * 3) == 3
        return time.process_time() - began

    assert seconds(100_000) < 40 * seconds(10_000), "ten times as long, not a hundred"


def test_words_in_the_same_order_are_counted_exactly() -> None:
    draw = random.Random(0)
    for _ in range(300):
        one, other = ([b"%d" % draw.randrange(4) for _ in range(draw.randrange(24))] for _ in "ab")
        row = [0] * (len(other) + 1)
        for word in one:
            before = row
            row = [0]
            for place, against in enumerate(other):
                longest = before[place] + 1 if word == against else max(before[place + 1], row[-1])
                row.append(longest)
        assert in_order(one, other) == row[-1]


def test_it_is_said_when_a_file_is_compared_only_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [" ".join(f"w{n}x{k}" for k in range(20)) for n in range(10)]
    monkeypatch.setattr(near_duplicates, "MOST_RUNS", 60)
    monkeypatch.setattr(duplicate_index, "MOST_SAMPLES", 8)
    leakage = Leakage()
    scan = Scan(str(write(tmp_path / "v.jsonl", [text(t) for t in said])), indexing=leakage)
    (finding,) = (f for f in scan.run() if isinstance(f, Finding))
    assert (finding.code, finding.args["samples"], finding.args["near"]) == (
        "data.partly_compared",
        8,
        3,
    )
    assert scan.warnings == 0
    leakage.freeze()
    train = Scan(str(write(tmp_path / "t.jsonl", [text(t) for t in said])), leakage=leakage)
    leaks = [f.args["line"] for f in train.run() if isinstance(f, Finding)]
    assert leaks == list(range(1, 9))


def inspect(folder: Path, request: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """The lines of the worker, and its largest memory in bytes."""
    folder.mkdir()
    (folder / "inspect_request.json").write_text(json.dumps(request))
    command = [sys.executable, "-c", MEASURED, "inspect", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in (folder / "probe.json.partial").read_text().splitlines()]
    return lines, int(done.stdout)


def counts(folder: Path) -> dict[str, int]:
    """The problems of the training file, by code, in the worker's result."""
    found: dict[str, int] = json.loads((folder / "probe.json").read_text())["train"]["counts"]
    return found


def leaks_of(lines: list[dict[str, Any]]) -> list[tuple[str, str, int, str]]:
    problems = [line["problem"] for line in lines if "problem" in line]
    return [
        (p["code"], Path(p["args"]["path"]).name, p["args"]["line"], p["args"].get("file", ""))
        for p in problems
    ]


def test_every_file_is_compared_with_each_that_is_smaller(tmp_path: Path) -> None:
    a, b, c = (chat(f"Question {n}?", f"Answer {n}.") for n in "abc")
    small = write(tmp_path / "small.jsonl", [a])
    middle = write(tmp_path / "middle.jsonl", [b, a])
    large = write(tmp_path / "large.jsonl", [c, b, a])
    lines, _ = inspect(tmp_path / "run", {"files": [str(large), str(small), str(middle)]})
    assert leaks_of(lines) == [
        ("data.leak", "middle.jsonl", 2, "small.jsonl"),
        ("data.leak", "large.jsonl", 2, "middle.jsonl"),
        ("data.leak", "large.jsonl", 3, "small.jsonl"),
    ]
    assert {line["problem"]["status"] for line in lines if "problem" in line} == {"warning"}


def test_a_file_under_two_names_is_read_once_and_said(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [chat("q?", "a.")])
    (tmp_path / "b.jsonl").symlink_to(file)
    lines, _ = inspect(tmp_path / "run", {"files": [str(file), str(tmp_path / "b.jsonl")]})
    assert leaks_of(lines) == [("data.same_file", "b.jsonl", 0, "")]
    assert sum("summary" in line for line in lines) == 1


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        write(tmp_path / name / "x.jsonl", [chat("q?", "a.")])
    paths = [str(tmp_path / name / "x.jsonl") for name in "ab"]
    lines, _ = inspect(tmp_path / "run", {"files": paths})
    assert leaks_of(lines) == [("data.leak", "x.jsonl", 1, paths[0])]


def test_preflight_looks_training_samples_up_in_the_validation_file(tmp_path: Path) -> None:
    a, b = chat("Question a?", "Answer a."), chat("Question b?", "Answer b.")
    train = write(tmp_path / "train.jsonl", [a])
    valid = write(tmp_path / "valid.jsonl", [b, a, b, a])  # larger than the training file
    lines, _ = inspect(tmp_path / "run", {"train": str(train), "valid": str(valid)})
    leaks = [leak for leak in leaks_of(lines) if leak[0] == "data.leak"]
    assert leaks == [("data.leak", "train.jsonl", 1, "valid.jsonl")]
    assert counts(tmp_path / "run") == {"data.leak": 1}


def test_one_file_for_both_is_wholly_leaked(tmp_path: Path) -> None:
    both = str(write(tmp_path / "a.jsonl", [chat(f"q{n}?", "a.") for n in range(3)]))
    inspect(tmp_path / "run", {"train": both, "valid": both})
    assert counts(tmp_path / "run") == {"data.leak": 3}


def test_a_path_that_no_system_takes_is_a_finding(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [chat("q?", "a.")])
    lines, _ = inspect(tmp_path / "run", {"files": [str(file), f"{tmp_path}/b\0c"]})
    assert [leak[0] for leak in leaks_of(lines)] == ["path.unreadable"]


def filled(head: bytes, unit: bytes, tail: bytes) -> bytes:
    """The longest line of `unit`s that is taken."""
    return head + unit * ((MAX_LINE_BYTES - len(head + tail) - 1) // len(unit)) + tail + b"\n"


def test_no_line_and_no_number_of_samples_takes_much_memory(tmp_path: Path) -> None:
    chain = b'{"":' * 900 + b"1" + b"}" * 900 + b","
    lines = [
        filled(b'{"text":"', b"ab cd ", b'"}'),
        filled(b'{"text":"x","a":[', b"{},", b"1]}"),
        filled(b'{"text":"x","a":[', chain, b"1]}"),
        filled(b'{"messages":[', b"{},", b"{}]}"),
    ]
    train = tmp_path / "train.jsonl"
    with train.open("wb") as file:
        for number in range(40_000):
            said = " ".join(f"w{number}x{place}" for place in range(40))
            file.write(b'{"text":"%s"}\n' % said.encode())
        file.writelines(lines)
    valid = tmp_path / "valid.jsonl"
    with valid.open("wb") as file, train.open("rb") as same:
        file.writelines(line for number, line in zip(range(30_000), same, strict=False))
        file.writelines(lines[:1])
    found, peak = inspect(tmp_path / "run", {"files": [str(valid), str(train)]})
    assert [line["summary"]["samples"] for line in found if "summary" in line] == [30_001, 40_003]
    assert peak < PEAK

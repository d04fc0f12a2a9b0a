from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from safetrain_shared.errors import InvalidInput, NotFound
from safetrain_shared.findings import Finding, Status
from safetrain_shared.messages import SENTENCES, say
from safetraind.worker.data import duplicate_index as corpus_index
from safetraind.worker.data.duplicate_index import Leakage, Repeats
from safetraind.worker.data.line_reader import MAX_LINE_BYTES, Corpus, Line
from safetraind.worker.data.reservoir_sample import MAX_LINES, ReservoirSample
from safetraind.worker.data.scan import MAX_LISTED, Scan

GOOD = b'{"messages":[{"role":"user","content":"Ola?"},{"role":"assistant","content":"Sim."}]}'


def chat(question: str, answer: str) -> bytes:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages}, ensure_ascii=False).encode()


def scanned(path: Path, **kwargs: Any) -> tuple[Scan, list[Finding]]:
    scan = Scan(str(path), **kwargs)
    return scan, [found for found in scan.run() if isinstance(found, Finding)]


def write(path: Path, *lines: bytes, end: bytes = b"\n") -> Path:
    path.write_bytes(end.join(lines) + end)
    return path


BAD_LINES: dict[str, tuple[bytes, str]] = {
    "truncated UTF-8": (GOOD.replace(b"Ola", b"Ol\xc3"), "data.not_utf8"),
    "overlong UTF-8": (GOOD.replace(b"Ola", b"\xc0\xaf"), "data.not_utf8"),
    "latin-1": (GOOD.replace(b"Ola", b"Ol\xe1"), "data.not_utf8"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "data.not_utf8"),
    "encoded surrogate": (GOOD.replace(b"Ola", b"\xed\xa0\x80"), "data.not_utf8"),
    "lone surrogate": (GOOD.replace(b"Ola", b"\\ud800"), "data.not_json"),
    "NUL byte": (GOOD.replace(b"Ola", b"\x00"), "data.nul_byte"),
    "control character": (GOOD.replace(b"Ola", b"\x01"), "data.not_json"),
    "cut in the middle": (GOOD[:40], "data.not_json"),
    "trailing comma": (GOOD[:-1] + b",}", "data.not_json"),
    "single quotes": (GOOD.replace(b'"', b"'"), "data.not_json"),
    "two objects": (GOOD + GOOD, "data.not_json"),
    "NaN": (b'{"text": NaN}', "data.not_json"),
    "Infinity": (b'{"text": -Infinity}', "data.not_json"),
    "comment": (b"// nothing", "data.not_json"),
    "deep nesting": (b'{"text":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "data.not_json"),
    "unclosed nesting": (b"[" * 100_000, "data.not_json"),
    "huge number": (b'{"text": 1e999999}', "data.not_json"),
    "array": (b"[1, 2]", "data.not_an_object"),
    "string": (b'"text"', "data.not_an_object"),
    "null": (b"null", "data.not_an_object"),
    "no known key": (b'{"instruction": "a", "output": "b"}', "data.unknown_format"),
    "empty object": (b"{}", "data.unknown_format"),
    "messages of a wrong type": (b'{"messages": "hi"}', "data.messages_not_a_list"),
    "messages null": (b'{"messages": null}', "data.messages_not_a_list"),
    "messages an object": (b'{"messages": {"role": "user"}}', "data.messages_not_a_list"),
    "no messages": (b'{"messages": []}', "data.no_messages"),
    "message a text": (b'{"messages": ["hi"]}', "data.message_not_an_object"),
    "message without a role": (b'{"messages": [{"content": "a"}]}', "data.role_not_text"),
    "role a list": (b'{"messages": [{"role": ["user"], "content": "a"}]}', "data.role_not_text"),
    "role nested deep": (
        b'{"messages": [{"role": ' + b"[" * 1000 + b"]" * 1000 + b', "content": "a"}]}',
        "data.role_not_text",
    ),
    "role unknown": (b'{"messages": [{"role": "bot", "content": "a"}]}', "data.unknown_role"),
    "content missing": (b'{"messages": [{"role": "user"}]}', "data.content_not_text"),
    "content a number": (
        b'{"messages": [{"role": "user", "content": 1}]}',
        "data.content_not_text",
    ),
    "no answer": (b'{"messages": [{"role": "user", "content": "a"}]}', "data.no_answer"),
    "two questions and no answer": (
        b'{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}',
        "data.no_answer",
    ),
    "tool calls a text": (
        GOOD.replace(b'"Sim."', b'"Sim.","tool_calls":"foo"'),
        "data.calls_not_a_list",
    ),
    "prompt a list": (b'{"prompt": [], "completion": "b"}', "data.not_text"),
    "text a number": (b'{"text": 1}', "data.not_text"),
    "tools a text": (GOOD[:-1] + b',"tools":"x"}', "data.tools_not_a_list"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_named_with_its_reason_and_the_rest_is_read(
    tmp_path: Path, name: str
) -> None:
    line, code = BAD_LINES[name]
    scan, found = scanned(write(tmp_path / "a.jsonl", GOOD, line, chat("b?", "c")))
    assert scan.samples == 2
    assert [(f.code, f.args["line"], f.status) for f in found] == [(code, 2, Status.FAILED)]
    assert "?" not in say(found[0], lang="en").replace('"', "")
    assert say(found[0], lang="pt")


ODD_LINES: dict[str, tuple[bytes, str]] = {
    "duplicate key": (
        b'{"messages":[],"messages":[{"role":"user","content":"q"},'
        b'{"role":"assistant","content":"z"}]}',
        "data.duplicate_key",
    ),
    "role twice in a message": (
        chat("q?", "z").replace(b'"role": "user"', b'"role": "system", "role": "user"'),
        "data.duplicate_key",
    ),
    "content twice in a message": (
        GOOD.replace(b'"content":"Ola?"', b'"content":"a\\"b","content":"Ol\xc3\xa1?"'),
        "data.duplicate_key",
    ),
    "empty answer": (chat("q?", " "), "data.empty_answer"),
    "empty answer in the middle": (
        b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":""},'
        b'{"role":"user","content":"r"},{"role":"assistant","content":"z"}]}',
        "data.empty_answer",
    ),
    "empty answer in parts": (
        b'{"messages":[{"role":"user","content":"q"},'
        b'{"role":"assistant","content":[{"type":"text","text":""}]}]}',
        "data.empty_answer",
    ),
    "blank line": (b"   ", "data.blank_line"),
    "two users": (
        b'{"messages":[{"role":"user","content":"q"},{"role":"user","content":"q"},'
        b'{"role":"assistant","content":"z"}]}',
        "data.role_order",
    ),
    "late system": (
        b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"z"},'
        b'{"role":"system","content":"s"}]}',
        "data.role_order",
    ),
    "last from the user": (
        b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"z"},'
        b'{"role":"user","content":"s"}]}',
        "data.last_not_answer",
    ),
}


@pytest.mark.parametrize("name", ODD_LINES)
def test_an_odd_line_is_a_warning(tmp_path: Path, name: str) -> None:
    line, code = ODD_LINES[name]
    scan, found = scanned(write(tmp_path / "a.jsonl", GOOD, line))
    assert [(f.code, f.status) for f in found] == [(code, Status.WARNING)]
    assert scan.errors == 0


GOOD_FILES: dict[str, tuple[bytes, ...]] = {
    "chat": (GOOD, chat("b?", "c")),
    "completions": (b'{"prompt":"a","completion":"b"}', b'{"prompt":"","completion":"c"}'),
    "text": (b'{"text":"a"}', b'{"text":"b","meta":{"text":"x"}}'),
    "tools": (
        b'{"tools":[{"type":"function"}],"messages":[{"role":"system","content":"s"},'
        b'{"role":"user","content":"q"},{"role":"assistant","tool_calls":[{"id":"1"}]},'
        b'{"role":"tool","content":"r"},{"role":"assistant","content":"z"}]}',
        GOOD,
    ),
    "chat of parts": (
        b'{"messages":[{"role":"user","content":[{"type":"text","text":"q"}]},'
        b'{"role":"assistant","content":"z"}]}',
    ),
}


@pytest.mark.parametrize("name", GOOD_FILES)
def test_every_format_of_mlx_lm_passes(tmp_path: Path, name: str) -> None:
    lines = GOOD_FILES[name]
    scan, found = scanned(write(tmp_path / "a.jsonl", *lines))
    assert found == []
    assert (scan.samples, scan.format) == (len(lines), name.split()[0])


def test_what_lies_deep_in_a_sample_is_no_matter(tmp_path: Path) -> None:
    deep = b"[" * 300 + b"]" * 300
    part = b'[{"type":"text","text":"Ola?","x":' + deep + b"}]"
    call = GOOD.replace(b'"Sim."', b'"Sim.","tool_calls":[{"function":{"x":' + deep + b"}}]")
    scan, found = scanned(write(tmp_path / "a.jsonl", GOOD.replace(b'"Ola?"', part), call))
    assert (scan.samples, found) == (2, [])


def test_a_type_is_named_in_words(tmp_path: Path) -> None:
    lines = [b'{"messages": [{"role": "user", "content": null}]}', b'{"text": {}}', b"[]"]
    _, found = scanned(write(tmp_path / "a.jsonl", *lines))
    said = [[say(finding, lang=lang) for finding in found] for lang in ("en", "pt")]
    assert said == [
        [
            "The content of message 1 is not a text but nothing (null)",
            '"text" is not a text but an object',
            "Not a JSON object but a list",
        ],
        [
            "O conteúdo da mensagem 1 não é um texto, mas nada (null)",
            '"text" não é um texto, mas um objeto',
            "Não é um objeto JSON, mas uma lista",
        ],
    ]


def test_a_key_from_the_file_is_shown_short_and_harmless(tmp_path: Path) -> None:
    key = b"\\u001b[31m" + b"x" * 1_000_000
    doubled = b'{"text":"a","text":"b","%s":1,"%s":2}' % (key, key)
    _, found = scanned(write(tmp_path / "a.jsonl", b'{"%s":0,"%s":0}' % (key, key), doubled))
    assert [f.code for f in found] == ["data.unknown_format", "data.duplicate_key"]
    assert all(len(say(f)) < 200 and "\x1b" not in say(f) for f in found)


def test_many_keys_take_no_longer_than_their_number(tmp_path: Path) -> None:
    def seconds(count: int) -> float:
        keys = b",".join(b'"%d":0' % n for n in range(count))
        path = write(tmp_path / f"{count}.jsonl", b'{"text":"a","text":"b",' + keys + b"}")
        began = time.process_time()
        _, found = scanned(path)
        assert [f.args["key"] for f in found] == ["text"]
        return time.process_time() - began

    assert seconds(60_000) < 40 * seconds(6_000), "ten times as many, not a hundred times as long"


def test_a_line_of_bad_messages_gives_few_findings(tmp_path: Path) -> None:
    line = b'{"messages":[' + b"{}," * 100_000 + b"{}]}"
    _, found = scanned(write(tmp_path / "a.jsonl", line))
    assert {f.code for f in found} == {"data.role_not_text"} and len(found) < 10


def test_a_sample_of_another_format_is_an_error(tmp_path: Path) -> None:
    _, found = scanned(write(tmp_path / "a.jsonl", GOOD, b'{"text":"a"}'))
    assert [(f.code, f.args["line"]) for f in found] == [("data.mixed_formats", 2)]


def test_crlf_bom_and_a_missing_last_newline_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD + b"\r\n" + chat("b?", "c"))
    scan, found = scanned(path)
    assert scan.samples == 2
    assert [(f.code, f.status) for f in found] == [("data.bom", Status.WARNING)]


def test_an_empty_file_has_no_samples(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.touch()
    scan, found = scanned(path)
    assert (scan.samples, scan.lines) == (0, 0)
    assert [(f.code, f.status) for f in found] == [("data.no_samples", Status.FAILED)]


def test_a_file_of_blank_lines_has_no_samples(tmp_path: Path) -> None:
    scan, found = scanned(write(tmp_path / "a.jsonl", b"", b" "))
    assert [f.code for f in found] == ["data.blank_line", "data.blank_line", "data.no_samples"]
    assert scan.errors == 1


def test_a_folder_a_fifo_and_a_missing_file_are_refused_at_once(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path, fifo):
        with pytest.raises(InvalidInput) as caught:
            list(Scan(str(path)).run())
        assert caught.value.code == "path.not_a_file"
    with pytest.raises(NotFound):
        list(Scan(str(tmp_path / "none")).run())
    with pytest.raises(InvalidInput):
        list(Scan("/tmp/a\x00b").run())


def test_a_line_too_long_is_passed_over_and_not_held(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(GOOD + b"\n")
        file.seek(200 << 20, os.SEEK_CUR)  # a hole reads as NUL bytes
        file.write(b"\n" + chat("b?", "c") + b"\n")
    tracemalloc.start()
    scan, found = scanned(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(f.code, f.args["line"]) for f in found] == [("data.line_too_long", 2)]
    assert found[0].args["bytes"] == (200 << 20) + 1
    assert scan.samples == 2 and scan.lines == 3
    assert peak < 3 * MAX_LINE_BYTES


def test_a_file_that_grows_is_read_as_far_as_it_was(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", GOOD)
    with Corpus(str(path)) as corpus:
        with path.open("ab") as file:
            file.write(chat("b?", "c") + b"\n")
        assert [line.number for line in corpus] == [1]
        assert corpus.grew


def test_repeats_are_found_whatever_their_case_and_spacing(tmp_path: Path) -> None:
    lines = [chat(f"Pergunta {n}?", "Sim.") for n in range(5)]
    _, found = scanned(write(tmp_path / "a.jsonl", *lines, chat("PERGUNTA  1?", "sim.")))
    assert [(f.code, f.args["line"], f.args["first"]) for f in found] == [("data.duplicate", 6, 2)]


def test_repeats_are_the_same_from_memory_and_from_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [hash(str(n % 700)) for n in range(1000)]
    in_memory, on_disk = Repeats(), Repeats()
    for line, key in enumerate(keys, 1):
        in_memory.add(key, line)
    monkeypatch.setattr(corpus_index, "_PENDING_HASHES", 64)
    for line, key in enumerate(keys, 1):
        on_disk.add(key, line)
    expected = [(line, line - 700) for line in range(701, 1001)]
    assert list(in_memory) == expected
    assert sorted(on_disk) == expected


def test_leaks_equal_and_nearly_equal_are_found(tmp_path: Path) -> None:
    words = "o clube joga em Faro desde abril de mil novecentos e dez no campo"
    valid = write(tmp_path / "v.jsonl", chat("Onde joga?", words), chat("Curto?", "Sim."))
    train = write(
        tmp_path / "t.jsonl",
        chat("onde  joga?", words.upper()),
        chat("Onde joga?", words.replace("campo", "estádio")),
        chat("Onde jogava?", "o Olhanense joga em Olhão, uma cidade vizinha, e veste de preto"),
        chat("Curto?", "Não."),
    )
    leakage = Leakage()
    scanned(valid, indexing=leakage)
    leakage.freeze()
    _, found = scanned(train, leakage=leakage)
    assert [(f.code, f.args["line"], f.args["other"]) for f in found] == [
        ("data.leak", 1, 1),
        ("data.near_leak", 2, 1),
    ]


def test_a_draw_is_whole_while_small_and_uniform_when_large() -> None:
    small = ReservoirSample()
    for n in range(100):
        small.offer(Line(n, b"%d" % n), odd=True)
    assert small.complete and len(list(small)) == 100
    assert list(small.longest()) == list(small.odd()) == []
    large = ReservoirSample()
    for n in range(8 * MAX_LINES):
        large.offer(Line(n, b"%08d" % n))
    drawn = [line.number for line in large]
    assert len(set(drawn)) == MAX_LINES and not large.complete
    assert abs(sum(drawn) / len(drawn) / (4 * MAX_LINES) - 1) < 0.05


def test_the_longest_and_the_odd_lines_are_kept_whatever_the_draw_misses() -> None:
    draw = ReservoirSample()
    for n in range(3 * MAX_LINES):
        draw.offer(Line(n, b"x" * (500 if n == 20_000 else 10)), odd=n == 10_000)
    assert max(len(line.content) for line in draw.longest()) == 500
    assert [line.number for line in draw.odd()] == [10_000]


def test_problems_beyond_the_listed_are_counted(tmp_path: Path) -> None:
    scan, found = scanned(write(tmp_path / "a.jsonl", *[b"x"] * (MAX_LISTED + 50)))
    assert scan.errors == MAX_LISTED + 50
    assert len(found) == MAX_LISTED + 1 and found[-1].code == "data.not_listed"


def inspect(folder: Path, request: dict[str, Any]) -> list[dict[str, Any]]:
    folder.mkdir()
    (folder / "inspect_request.json").write_text(json.dumps(request))
    command = [sys.executable, "-m", "safetraind.worker", "inspect", str(folder)]
    subprocess.run(command, check=True, timeout=60)
    return [json.loads(line) for line in (folder / "probe.json.partial").read_text().splitlines()]


def test_the_inspect_worker_validates_files_and_survives_missing_ones(tmp_path: Path) -> None:
    good = write(tmp_path / "a.jsonl", GOOD, b"x")
    lines = inspect(tmp_path / "run", {"files": [str(good), str(tmp_path / "none")]})
    problems = [line["problem"] for line in lines if "problem" in line]
    assert {(p["code"], p["args"]["path"], p["args"]["line"]) for p in problems} == {
        ("data.not_json", str(good), 2),
        ("path.missing", str(tmp_path / "none"), 0),
    }
    summaries = [line["summary"] for line in lines if "summary" in line]
    assert [(s["samples"], s["problems"], s["format"]) for s in summaries] == [(1, 1, "chat")]


def test_every_problem_has_a_sentence() -> None:
    named: Callable[[str], bool] = SENTENCES.__contains__
    assert all(named(code) for _, code in [*BAD_LINES.values(), *ODD_LINES.values()])


def test_answers_that_are_not_to_be_learned_are_counted(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "a?"},
        {"role": "assistant", "content": "b", "train": False},
        {"role": "user", "content": "c?"},
        {"role": "assistant", "content": "d", "weight": 0},
        {"role": "user", "content": "e?"},
        {"role": "assistant", "content": "f", "weight": 1},
    ]
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"messages": turns}) + "\n")
    scan = Scan(str(file))
    told = [found for found in scan.run() if isinstance(found, Finding)]
    assert [(f.code, f.args["count"]) for f in told] == [("data.unlearned", 2)]
    assert scan.warnings == scan.errors == 0

"""The oddities of the files people have: each is read right, or refused with a sentence."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from safetrain_shared.errors import InvalidInput, NotFound
from safetraind.worker.prepare import read_rows
from safetraind.worker.prepare.read_rows import Source
from safetraind.worker.prepare.sample_forms import Form, Unmapped, form_of

CSV = 'pergunta;resposta\nQual é a cidade?;"Faro; no Algarve"\nE o rival?;"Olhanense\nde Olhão"\n'
PAIRS = [("Qual é a cidade?", "Faro; no Algarve"), ("E o rival?", "Olhanense\nde Olhão")]


def samples(path: Path, **mapping: str) -> list[Any]:
    rows = list(Source(str(path)).rows())
    form = next(f for row in rows if (f := form_of(row.value, mapping)))
    return [form.sample(row.value) for row in rows]


def pairs(path: Path, **mapping: str) -> list[tuple[str, str]]:
    return [
        (s["messages"][-2]["content"], s["messages"][-1]["content"])
        for s in samples(path, **mapping)
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_a_csv_is_read_in_the_encodings_that_spreadsheets_write(
    tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(CSV.encode(encoding))
    assert pairs(path) == PAIRS


@pytest.mark.parametrize("delimiter", [",", "\t", "|"])
def test_the_delimiter_is_found_in_the_head(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'question{delimiter}"a;n;s;w;e;r"\nQ?{delimiter}A.\n', encoding="utf-8")
    assert pairs(path, question="question", answer="a;n;s;w;e;r") == [("Q?", "A.")]


@pytest.mark.parametrize(
    ("content", "read"),
    [
        ("sep=;\npergunta;resposta\na?;b\n", [("a?", "b")]),
        ("pergunta,pergunta,resposta\n1?,2?,x\n", [("1?", "x")]),
        ("pergunta,resposta,nota\na?,b,c,mais\n\n", [("a?", "b")]),
        ('pergunta,resposta\n"diz ""olá""?","y, z"\n', [('diz "olá"?', "y, z")]),
        (f"pergunta,resposta\na?,{'x' * 200_000}\n", [("a?", "x" * 200_000)]),
        ("pergunta\tresposta\ra?\tb\r", [("a?", "b")]),
    ],
)
def test_oddities_of_tables_are_read_right(
    tmp_path: Path, content: str, read: list[tuple[str, str]]
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content, encoding="utf-8", newline="")
    assert pairs(path) == read


def test_excel_and_parquet(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (["Pergunta", "Resposta"], ["Ano?", 1910], [None, None], ["Cidade?", "Faro"]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    assert pairs(tmp_path / "a.xlsx") == [("Ano?", "1910"), ("Cidade?", "Faro")]
    table = pyarrow.table({"instruction": ["Ano?"], "input": ["do clube"], "output": ["1910"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert pairs(tmp_path / "a.parquet") == [("Ano?\n\ndo clube", "1910")]


SHAREGPT = {
    "conversations": [
        {"from": "system", "value": "Sê breve."},
        {"from": "human", "value": "Cidade?"},
        {"from": "gpt", "value": "Faro."},
    ]
}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("wrapped", [False, True])
def test_one_json_document_is_read_record_by_record(
    tmp_path: Path, indent: int | None, wrapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_rows, "_CHUNK", 7)  # records reach over many pieces
    records = [SHAREGPT] * 3
    document: Any = {"version": 1.5, "data": records} if wrapped else records
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document, ensure_ascii=False, indent=indent), encoding="utf-8")
    found = samples(path)
    assert len(found) == 3
    assert [m["role"] for m in found[0]["messages"]] == ["system", "user", "assistant"]


def test_json_lines_and_folders_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = ['{"prompt": "Q?", "completion": "A."}', "", '{"prompt": "R?", "completion": "B."}', ""]
    path.write_text("\n".join(lines))
    assert pairs(path) == [("Q?", "A."), ("R?", "B.")]
    folder = tmp_path / "textos"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "2.md").write_text("# Dois")
    (folder / "1.txt").write_text("Um")
    (folder / "3.png").write_bytes(b"\x00")
    assert samples(folder) == [{"text": "Um"}, {"text": "# Dois"}]


def test_cells_of_any_type_are_texts(tmp_path: Path) -> None:
    columns = {
        "question": ["real?", "yes?", "day?", "hour?"],
        "answer": [Decimal("1.50"), True, datetime(2020, 5, 1), datetime(2020, 5, 1, 9)],
    }
    form = Form("question", {"question": "question", "answer": "answer"})
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    said = [form.sample(row)["messages"][1]["content"] for row in rows]
    assert said == ["1.50", "true", "2020-05-01", "2020-05-01 09:00:00"]


def test_chats_in_tables_and_earlier_turns(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0}]
    tables = {"nested": [turns, turns], "as text": [json.dumps(turns)] * 2}
    for name, column in tables.items():
        path = tmp_path / f"{name}.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"messages": column}), path)
        assert samples(path)[0]["messages"] == turns, name
    form = form_of({"instruction": "i", "output": "o", "history": [["q", "a"]]}, {})
    assert form is not None
    found = form.sample({"instruction": "i", "output": "o", "history": [["q", "a"]]})
    assert [m["content"] for m in found["messages"]] == ["q", "a", "i", "o"]


@pytest.mark.parametrize(
    ("record", "missing"),
    [
        ({"question": "Q?", "answer": None}, "answer"),
        ({"question": float("nan"), "answer": "A."}, "question"),
        ({"question": "Q?", "answer": ["A."]}, "text"),
        ({"question": "Q?", "answer": b"A."}, "text"),
        ({"question": "Q?", "answer": "A.", "history": ["q"]}, "history"),
        ("text", "record"),
    ],
)
def test_a_record_that_lacks_something_names_it(record: Any, missing: str) -> None:
    form = Form("question", {"question": "question", "answer": "answer"})
    with pytest.raises(Unmapped, match=missing):
        form.sample(record)


@pytest.mark.parametrize(
    "turns",
    [
        [],
        "none",
        [{"from": "human", "value": "Q?"}],
        [{"from": "narrator", "value": "Q?"}, {"from": "gpt", "value": "A."}],
        [{"from": "human"}, {"from": "gpt", "value": "A."}],
    ],
)
def test_a_chat_that_is_none_is_refused(turns: Any) -> None:
    form = form_of({"conversations": turns}, {})
    assert form is not None
    with pytest.raises(Unmapped):
        form.sample({"conversations": turns})


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.pdf", b"%PDF", "prepare.unknown_kind"),
        ("a.json", b'[{"a": 1}, {"a"', "path.unreadable"),
        ("a.json", b"[]trailing", ""),
        ("a.parquet", b"PAR0", "path.unreadable"),
        ("a.xlsx", b"PK none", "path.unreadable"),
        ("a.csv", b'a,b\n"x', "path.unreadable"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(
    tmp_path: Path, name: str, content: bytes, code: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    if not code:
        assert list(Source(str(path)).rows()) == []
        return
    with pytest.raises(InvalidInput) as caught:
        list(Source(str(path)).rows())
    assert caught.value.code == code


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"gone\.csv"):
        list(Source(str(tmp_path / "gone.csv")).rows())

"""Writes docs/json.md and docs/pt/json.md: the fields that `--json` prints, from the proto files.

`--check` checks that they are current. The meanings are the comments in `proto/`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
PAGES = {"en": ROOT / "docs" / "json.md", "pt": ROOT / "docs" / "pt" / "json.md"}
# What each command prints: one object, a list of them, or one object a line.
COMMANDS = (
    ("status, pause, resume, cancel, retry, move", "Job"),
    ("jobs", "[Job]"),
    ("submit", "SubmitResponse"),
    ("preflight", "PreflightEvent …"),
    ("watch, submit --watch", "Event …"),
    ("ask", '{"answer", "source": AnswerSource, AnswerDone}'),
    ("prepare", "PrepareEvent …"),
    ("preview", "PreviewResponse"),
    ("serve", '{"base_url", "token", "model", "port"}'),
    ("validate", "ValidateEvent …"),
    ("export", '{Exported, "program", "name"}'),
    ("evaluate", "Evaluation"),
    ("models list", "[Model]"),
    ("models add", "AddModelEvent …"),
    ("models suggest", "SuggestModelsResponse"),
    ("diagnose", '{"job", "findings": [Finding], "machine": Machine}'),
)
TEXTS = {
    "en": (
        "# What --json prints",
        "[Português](pt/json.md)",
        (
            "Every command takes `--json` and then prints JSON on standard output, and nothing "
            "else: one value, or one object a line where the table shows `…`. All fields are "
            "there; one that is absent is `null`. Times are seconds since the epoch, UTC; memory "
            "is bytes. An enum is its short name in lower case: a job that the text calls "
            "*training* is `running`. A finding has its sentence in `text`, in the language in "
            'use. An error is one object on standard error, `{"error": {"code", "args", "text"}, '
            '"exit_code"}`.'
        ),
        ("command", "prints"),
        ("field", "type", "meaning"),
    ),
    "pt": (
        "# O que --json escreve",
        "[English](../json.md)",
        (
            "Todos os comandos aceitam `--json`; escrevem então JSON na saída padrão, e mais "
            "nada: um valor, ou um objeto por linha onde a tabela mostra `…`. Todos os campos "
            "estão presentes; o que não existe é `null`. Os tempos são segundos desde a época, "
            "UTC; a memória, bytes. Uma enumeração é o seu nome curto em minúsculas: um trabalho "
            "que o texto diz *a treinar* é `running`. Uma constatação traz a sua frase em `text`,"
            ' na língua em uso. Um erro é um objeto na saída de erros, `{"error": {"code", '
            '"args", "text"}, "exit_code"}`. O significado dos campos está em inglês, tal como no'
            " contrato."
        ),
        ("comando", "escreve"),
        ("campo", "tipo", "significado"),
    ),
}


def read_proto() -> FileDescriptorSet:
    """Return the descriptors of every proto file, with their comments."""
    with tempfile.NamedTemporaryFile() as out:
        sources = sorted(str(p.relative_to(PROTO)) for p in PROTO.rglob("*.proto"))
        flags = ["--include_source_info", f"--descriptor_set_out={out.name}"]
        common = files("grpc_tools") / "_proto"  # google's own messages
        code = protoc.main(["protoc", f"-I{PROTO}", f"-I{common}", *flags, *sources])
        if code:
            raise SystemExit(code)
        return FileDescriptorSet.FromString(Path(out.name).read_bytes())


def messages(described: FileDescriptorSet) -> Iterator[tuple[DescriptorProto, dict[int, str]]]:
    """Yield each message that is no request, with the comments of its fields by field index."""
    for file in described.file:
        comments = {
            tuple(place.path): (place.trailing_comments or place.leading_comments).strip()
            for place in file.source_code_info.location
        }
        for number, message in enumerate(file.message_type):
            if message.field and not message.name.endswith("Request"):
                fields = range(len(message.field))
                yield message, {i: comments.get((4, number, 2, i), "") for i in fields}


def type_of(field: FieldDescriptorProto) -> str:
    """Return the JSON type of a field."""
    kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    named = field.type_name.rpartition(".")[2]
    plain = {"string": "text", "bool": "true, false", "double": "number"}
    text = named or plain.get(kind, "whole number")
    return f"[{text}]" if field.label == FieldDescriptorProto.LABEL_REPEATED else text


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '∣') for cell in row)} |" for row in lines)


def document(lang: str, described: FileDescriptorSet) -> str:
    """Return the whole page in a language."""
    title, link, opening, commands, fields = TEXTS[lang]
    parts = [title, link, opening]
    parts.append(table(commands, [(f"`{verbs}`", f"`{what}`") for verbs, what in COMMANDS]))
    for message, comments in messages(described):
        rows = [
            (f"`{field.name}`", type_of(field), " ".join(comments[i].split()))
            for i, field in enumerate(message.field)
        ]
        parts += [f"## {message.name}", table(fields, rows)]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    """Write the pages, or with `--check` exit 1 naming those that differ."""
    described, stale = read_proto(), False
    for lang, path in PAGES.items():
        content = document(lang, described)
        if path.exists() and path.read_text("utf-8") == content:
            continue
        stale = True
        if "--check" in sys.argv:
            print(f"out of date: {path.relative_to(ROOT)} (run scripts/json_doc.py)")
        else:
            path.write_text(content, "utf-8")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())

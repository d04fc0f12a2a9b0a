"""Every error has a status, an exit code and a sentence, in both languages."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from google.rpc import code_pb2

from safetrain_shared import errors, messages
from safetrain_shared.i18n import format_text, translate
from safetrain_shared.messages import SENTENCES, sentence
from safetrain_shared.settings import FIELDS
from scripts import catalogues

PACKAGE = (messages.__path__, "safetrain_shared.messages.")
ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"^[a-z]+(\.[a-z0-9_]+)+$")
SHARED_EXIT_CODES = {65, 78, 66, 3, 73, 4, 75, 74, 77, 69, 76, 72, 70}


def sources() -> list[Path]:
    return [p for top in ("shared", "daemon", "client") for p in (ROOT / top).rglob("*.py")]


def test_every_error_class_has_a_known_status_and_its_own_exit_code() -> None:
    assert {cls.exit_code for cls in errors.ERRORS} == SHARED_EXIT_CODES
    assert len(errors.ERRORS) == len(SHARED_EXIT_CODES)
    for cls in errors.ERRORS:
        assert code_pb2.Code.Value(cls.grpc_status) > 0


def test_the_tree_in_the_docstring_names_every_error_with_its_status_and_code() -> None:
    for cls in errors.ERRORS:
        line = next(row for row in str(errors.__doc__).splitlines() if f"── {cls.__name__} " in row)
        assert cls.grpc_status in line
        assert f" {cls.exit_code} " in line


def raised_codes() -> list[tuple[str, str]]:
    """The literal codes given to an error or a Finding anywhere in the code."""
    names = {cls.__name__ for cls in errors.ERRORS} | {"Finding"}
    found = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and node.args):
                continue
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            first = node.args[0]
            if called in names and isinstance(first, ast.Constant) and CODE.match(str(first.value)):
                found.append((first.value, str(path.relative_to(ROOT))))
    return found


def test_every_code_in_the_source_has_a_sentence() -> None:
    codes = raised_codes()
    assert len(codes) > 20
    assert not [(code, path) for code, path in codes if code not in SENTENCES]


def test_no_code_stands_in_two_areas() -> None:
    areas = [importlib.import_module(m.name) for m in pkgutil.iter_modules(*PACKAGE)]
    assert sum(len(area.SENTENCES) for area in areas) == len(SENTENCES)


def test_every_setting_is_explained() -> None:
    assert not [name for name in FIELDS if f"explain.{name}" not in SENTENCES]


def test_every_marked_sentence_has_a_portuguese_one_with_the_same_arguments() -> None:
    assert catalogues.complaints("pt", catalogues.collected()) == []


@pytest.mark.parametrize("lang", ["en", "pt"])
def test_every_sentence_can_be_filled_in(lang: str) -> None:
    filled = {c: format_text(translate(text, lang), {}, lang) for c, text in SENTENCES.items()}
    assert not {code: text for code, text in filled.items() if "{" in text}


def test_a_code_of_a_newer_version_falls_back_to_the_text_it_came_with() -> None:
    assert sentence("future.code", {"a": 1}, fallback="As it came.") == "As it came."

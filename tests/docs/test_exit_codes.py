"""The documented table of exit codes is the code's."""

import re
from pathlib import Path

import pytest

from safetrain_shared import errors

DOCS = Path(__file__).resolve().parents[2] / "docs"
ROW = re.compile(r"^\| (\d+) \| (\S+)", re.MULTILINE)
OTHERS = {
    errors.EXIT_OK,
    errors.EXIT_FAILED,
    errors.EXIT_USAGE,
    errors.EXIT_CANCELLED,
    errors.EXIT_UNCLEAR,
    errors.EXIT_INTERRUPTED,
    errors.EXIT_PIPE,
}


@pytest.mark.parametrize("page", ["exit-codes.md", "pt/codigos-de-saida.md"])
def test_the_documented_table_is_the_codes_own(page: str) -> None:
    rows = {int(code): name for code, name in ROW.findall((DOCS / page).read_text())}
    classes = {cls.exit_code: cls.__name__ for cls in errors.ERRORS}
    assert rows.keys() == classes.keys() | OTHERS
    assert {code: rows[code] for code in classes} == classes

"""Whatever a file, a model or a name holds, no control sequence of it reaches the terminal."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import safetrain
from safetrain.cli import main
from safetrain.error_output import report
from safetrain.terminal.live_frame import FrameData, frame
from safetrain_proto.v1.jobs_pb2 import Job
from safetrain_shared.errors import InvalidInput
from safetrain_shared.history import History
from safetrain_shared.messages import SENTENCES, sentence
from safetrain_shared.printable import json_line, one_line, printable, printable_styled
from tests.client.builders import job
from tests.client.fake import FakeDaemon

# Sets the title, clears the screen, goes up a line, in 7 and 8 bits; turns the direction round.
HOSTILE = "a\x1b]0;title\x07b\x1b[2Jc\x1b[1Ad\x9b2Je\u202ef\rg\x7f"
HARMLESS = "a]0;titleb[2Jc[1Ad2Jefg"

Capture = pytest.CaptureFixture[str]


def test_control_sequences_go_and_text_stays() -> None:
    assert printable(HOSTILE) == HARMLESS
    assert printable("tab\tand\nline, ação, 魚") == "tab\tand\nline, ação, 魚"
    assert one_line("two\nlines") == "two lines"
    assert printable_styled(f"\x1b[32m{HOSTILE}\x1b[0m") == f"\x1b[32m{HARMLESS}\x1b[0m"


def test_json_keeps_what_it_escapes() -> None:
    line = json_line({"name": HOSTILE})
    assert printable(line) == line and json.loads(line) == {"name": HOSTILE}


def test_every_argument_of_every_sentence_is_cleaned() -> None:
    for code, text in SENTENCES.items():
        names = {part.split("}")[0].split(":")[0] for part in text.split("{")[1:]}
        said = sentence(code, dict.fromkeys(names - {"cause"}, HOSTILE))
        assert printable(said) == said, code


def test_an_error_with_a_hostile_reason_is_harmless(capsys: Capture) -> None:
    report(InvalidInput("data.no_tokenizer", reason=HOSTILE))
    told = capsys.readouterr().err
    assert HARMLESS.replace("\r", " ") in told.replace(" g", "g") and "\x1b" not in told


def hostile_job() -> Job:
    made = job(1)
    made.spec.name = made.spec.model = made.spec.train = HOSTILE
    return made


@pytest.mark.parametrize("command", [["jobs"], ["status", "1"]])
def test_a_hostile_name_is_harmless_in_every_view(
    command: list[str], daemon: FakeDaemon, capsys: Capture
) -> None:
    daemon.jobs = [hostile_job()]
    main(command)
    said = capsys.readouterr()
    assert "title" in said.out
    for control in "\x1b\x07\x9b\u202e\x7f":
        assert control not in said.out + said.err


def test_a_hostile_name_is_harmless_in_the_live_view() -> None:
    for line in frame(FrameData(hostile_job(), History(), now=0.0), 200, 30):
        assert printable(line.plain) == line.plain


def test_only_one_module_of_the_client_writes() -> None:
    """The rest calls `echo`, so that nothing can forget to clean."""
    root = Path(safetrain.__file__).parent
    for path in root.rglob("*.py"):
        if path.name == "echo.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                wrong = {"print", "click.echo", "click.secho", "sys.stdout.write"}
                assert called not in wrong | {"sys.stderr.write"}, f"{path}:{node.lineno}"

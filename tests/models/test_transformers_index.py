"""The index of transformers' modules that workers keep on disk is the one transformers computes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from safetraind.worker import transformers_index

# Prints how often the index was computed, and a hash of it.
_IMPORT = """
import importlib, sys
from safetraind.worker import transformers_index
kept, computed = transformers_index._kept, []
def counted(compute):
    return kept(lambda path: computed.append(path) or compute(path))
transformers_index._kept = counted
if sys.argv[1] == "kept":
    transformers_index.keep_on_disk()
import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
names = sorted(transformers._class_to_module)
times = sum(str(path).removesuffix("/__init__.py").endswith("/models") for path in computed)
print(times, len(names), hash(tuple(names)))
"""


def imported(state: Path, how: str) -> tuple[int, list[str]]:
    """Import transformers in a process of its own: how often it computed the index, what it has."""
    environment = {**os.environ, "XDG_STATE_HOME": str(state), "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-c", _IMPORT, how]
    found = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    computed, *names = found.stdout.split()
    return int(computed), names


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


def test_it_is_computed_once_and_has_the_same_names(state: Path) -> None:
    first, names = imported(state, "kept")
    assert first == 1, "transformers no longer computes it so: this module has no more use"
    assert imported(state, "kept") == (0, names)
    assert imported(state, "computed") == (0, names)
    [file] = (state / "safetrain" / "cache").iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert imported(state, "kept") == (1, names), "a flipped bit is noticed"


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert imported(tmp_path / "file", "kept")[0] == 2


def test_what_is_written_is_read_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "cache" / "index"
    index = {frozenset({"torch"}): {"a.b": {"A", "B"}}, "c": {}}
    transformers_index.write(file, index)
    assert transformers_index.read(file) == index
    file.write_bytes(b"")
    assert transformers_index.read(file) is None

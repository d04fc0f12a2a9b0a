"""`safetrain export --to`: a model given to Ollama and LM Studio, as these keep their models.

Ollama is a program of play that behaves as recorded: its `list` prints a table or fails where no
server runs, its `create` reads the Modelfile and takes the weights that it names.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from safetrain.model_programs import giving, lm_studio, ollama
from safetrain_proto.v1.exports_pb2 import Exported
from safetrain_shared.errors import Conflict, InvalidInput, NotAllowed, SafetrainError, Unreachable

OLLAMA = f"""#!{sys.executable}
import os, sys
from pathlib import Path
store = Path(__file__).with_name("store")
if store.with_name("no-server").exists():
    sys.exit("Error: could not connect to ollama server, run 'ollama serve' to start it")
if sys.argv[1:] == ["list"]:
    print("NAME             ID              SIZE      MODIFIED")
    for one in sorted(store.iterdir()):
        print(f"{{one.name}}:latest    2af3b81862c6    637 MB    5 days ago")
elif sys.argv[1] == "create" and sys.argv[3] == "-f":
    sys.stderr.write("\\x1b[?25lgathering model components \\u280b \\x1b[?25h\\n")
    weights = Path(sys.argv[4]).read_text().partition("\\n")[0].removeprefix("FROM ")
    if not Path(weights).is_file():
        sys.exit("\\x1b[?25h\\x1b[KError: no Modelfile or safetensors files found")
    (store / sys.argv[2]).write_bytes(Path(weights).read_bytes())
"""


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the program `ollama` and what it keeps; its folder `store` has its models."""
    folder = tmp_path / "bin"
    (folder / "store").mkdir(parents=True)
    (folder / "store" / "other").touch()
    (folder / "ollama").write_text(OLLAMA)
    (folder / "ollama").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    (tmp_path / "user").mkdir()
    return tmp_path / "user"


@pytest.fixture
def exported(tmp_path: Path) -> Exported:
    """A model folder with a GGUF file."""
    folder = tmp_path / "o meu 'modelo'"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "model.gguf", "manifest.json"):
        (folder / name).write_text(name)
    (folder / "Modelfile").write_text("FROM ./model.gguf\n")
    return Exported(path=str(folder), gguf=str(folder / "model.gguf"), modelfile=True)


def refused(program: str, folder: str, host: str = "") -> SafetrainError:
    with pytest.raises(SafetrainError) as error:
        giving.prepared(program, folder, host)
    return error.value


def test_ollama_takes_the_weights_under_the_folders_name(play: Path, exported: Exported) -> None:
    give = giving.prepared("ollama", exported.path, "")
    assert give(exported) == "o-meu-modelo-"
    assert (play / "store" / "o-meu-modelo-").read_text() == "model.gguf"
    taken = refused("ollama", exported.path)
    assert isinstance(taken, Conflict) and "o-meu-modelo-" in str(taken)
    for folder, name in (("/a/Farense_1.5B", "farense_1.5b"), ("/a/--é", "model"), ("/", "model")):
        assert ollama.name_of(folder) == name


def test_where_ollama_is_away_or_refuses_one_sentence_says_so(
    play: Path, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(exported.gguf).unlink()
    with pytest.raises(Unreachable) as found:
        ollama.create("new", Path(exported.path))
    sentence = "(no Modelfile or safetensors files found). It lies in"
    assert sentence in str(found.value) and "\x1b" not in str(found.value)
    (play / "no-server").touch()
    silent = refused("ollama", "/new")
    assert isinstance(silent, Unreachable) and "could not connect to ollama server" in str(silent)
    monkeypatch.setenv("PATH", "/nowhere")
    missing = refused("ollama", "/new")
    assert isinstance(missing, Unreachable) and "not on this machine" in str(missing)
    assert isinstance(refused("ollama", "/new", "studio"), InvalidInput)
    assert str(refused("olama", "/new")) == (
        "A model can be given to ollama, lm-studio; olama is none of them."
    )


def test_lm_studio_gets_it_two_folders_deep_where_it_looks(user: Path, exported: Exported) -> None:
    missing = refused("lm-studio", "/a/farense")
    assert isinstance(missing, Unreachable) and str(user / ".lmstudio") in str(missing)
    default, old, pointed = user / ".lmstudio", user / ".cache" / "lm-studio", user / "elsewhere"
    for home in (default, old, pointed):  # each goes before the one made earlier
        home.mkdir(parents=True)
        if home is pointed:
            (user / ".lmstudio-home-pointer").write_text(f"{pointed}\n")
        assert lm_studio.check("farense") == home / "models" / "safetrain" / "farense"
    chosen = user / "my models"
    (pointed / "settings.json").write_text(json.dumps({"downloadsFolder": str(chosen)}))
    give = giving.prepared("lm-studio", "/a/farense", "")
    assert give(exported) == "safetrain/farense"
    place = chosen / "safetrain" / "farense"
    assert [file.name for file in place.iterdir()] == ["farense.gguf"]
    assert (place / "farense.gguf").samefile(exported.gguf)  # takes no room
    assert isinstance(refused("lm-studio", "/b/farense"), Conflict)


def test_a_model_folder_goes_there_whole_or_not_at_all(
    user: Path, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    (user / ".lmstudio").mkdir()
    folder, place = Path(exported.path), lm_studio.check("farense")
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("another disk")))
    lm_studio.put(folder, "", place)
    assert {file.name for file in place.iterdir()} == {
        "config.json",
        "model.safetensors",
        "model.gguf",
    }
    other = lm_studio.check("other")
    with monkeypatch.context() as patch, pytest.raises(NotAllowed) as found:
        patch.setattr("shutil.copyfile", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full")))
        lm_studio.put(folder, "", other)
    assert "disk full" in str(found.value) and str(folder) in str(found.value)
    assert [one.name for one in other.parent.iterdir()] == ["farense"]

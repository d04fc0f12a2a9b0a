"""What another machine or the list of hosts says is checked before it is used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safetrain.remote.fetch import local_path
from safetrain_shared.errors import InvalidInput, NotAllowed, NotFound
from safetrain_shared.remote import host_list
from safetrain_shared.remote.host_list import Host
from safetrain_shared.remote.tunnel import quoted


@pytest.fixture(autouse=True)
def _list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_a_file_name_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    assert local_path(tmp_path, "plots/loss.png") == tmp_path / "plots/loss.png"
    (tmp_path / "link").symlink_to("/")
    bad = ("", "/etc/passwd", "../x", "a/../../x", "a\\..\\x", "link/etc/x", "x\x1b[2J", ".")
    for name in bad:
        with pytest.raises(NotAllowed):
            local_path(tmp_path, name)


def test_no_destination_is_an_option_of_ssh_or_a_shell_word() -> None:
    for destination in ("-oProxyCommand=x", "a b", "a;b", "$(x)", "", "a\nb", "x" * 300):
        with pytest.raises(InvalidInput):
            host_list.find(destination)
    for destination in ("ana@studio.local", "studio", "ssh://ana@[fe80::1%en0]:22"):
        assert host_list.find(destination).destination == destination


def test_a_shell_there_gets_each_word_as_one() -> None:
    assert quoted("~/safetrain/.venv/bin/safetraind") == "~/safetrain/.venv/bin/safetraind"
    assert [quoted(word) for word in ("a b", "x;y", "$(x)", "")] == [
        "'a b'",
        "'x;y'",
        "'$(x)'",
        "''",
    ]


def test_the_list_keeps_and_forgets_and_is_not_guessed_at_when_damaged() -> None:
    host_list.add(Host("studio", "ana@studio"))
    host_list.add(Host("mini", "mini", "~/bin/safetraind"))
    assert list(host_list.read()) == ["studio", "mini"]
    host_list.remove("studio")
    assert list(host_list.read()) == ["mini"]
    with pytest.raises(NotFound):
        host_list.remove("studio")
    for text in ("[]", "{", '{"hosts": 3}', '{"hosts": [{"name": "x"}]}', '{"hosts": [3]}'):
        host_list.path().write_text(text)
        with pytest.raises(InvalidInput):
            host_list.read()
    host_list.path().write_text(json.dumps({"format": 9, "hosts": []}))
    with pytest.raises(InvalidInput) as newer:
        host_list.read()
    assert newer.value.code == "file.newer"

"""The host file for JACCL: which machines it joins, by which devices, and what it is not."""

from __future__ import annotations

import json
import platform
from typing import Any

import pytest

from safetrain_shared.errors import InvalidInput
from safetrain_shared.remote import rdma
from safetrain_shared.remote.host_list import Host

STUDIO, MINI = Host("studio", "ana@studio.local"), Host("cupboard", "mini")
MESH = [
    {"ssh": "mini", "ips": ["10.0.0.3"], "rdma": [None, "rdma_en2", "rdma_en3"]},
    {"ssh": "Studio", "ips": ["10.0.0.2"], "rdma": ["rdma_en4", None, ["rdma_en5", "rdma_en6"]]},
    {"ssh": "book", "ips": ["10.0.0.1"], "rdma": ["rdma_en1", "rdma_en7", None]},
]


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(platform, "node", lambda: "book.local")
    rdma.path().parent.mkdir()


def write(content: Any) -> None:
    rdma.path().write_text(json.dumps(content))


def test_without_a_file_there_are_no_devices() -> None:
    assert rdma.between([STUDIO]) is None


def test_the_devices_are_in_the_order_of_the_ranks() -> None:
    write({"backend": "jaccl", "envs": [], "hosts": MESH})
    assert rdma.between([STUDIO, MINI]) == [
        [None, "rdma_en7", "rdma_en1"],
        ["rdma_en5", None, "rdma_en4"],
        ["rdma_en3", "rdma_en2", None],
    ]
    assert rdma.between([MINI]) == [[None, "rdma_en1"], ["rdma_en3", None]]


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "ana@BOOK", "some-other-name"])
def test_this_machine_has_any_of_its_names_or_is_the_one_that_is_left(name: str) -> None:
    write([*MESH[:2], {**MESH[2], "ssh": name}])
    assert rdma.between([STUDIO, MINI]) is not None


def test_machines_that_are_not_all_joined_make_a_ring() -> None:
    write(MESH)
    assert rdma.between([STUDIO, Host("other", "other")]) is None
    write([MESH[0], {**MESH[1], "rdma": ["rdma_en4", None, None]}, MESH[2]])
    assert rdma.between([STUDIO, MINI]) is None
    write([{**one, "rdma": []} for one in MESH])  # a host file for the ring
    assert rdma.between([STUDIO]) is None
    write([*MESH[:2], {**MESH[2], "ssh": "a"}, {"ssh": "b", "rdma": [None] * 4}])
    assert rdma.between([STUDIO, MINI]) is None, "which of the two is this machine"


@pytest.mark.parametrize(
    "content",
    [
        {"backend": "jaccl"},
        [{"rdma": [None]}],
        [1, 2],
        7,
        [{"ssh": "studio", "rdma": ["$(touch x)"]}],
        [{"ssh": "studio", "rdma": [None, 3]}],
        [{"ssh": "studio", "rdma": {"a": 1}}],
    ],
)
def test_a_damaged_file_is_one_sentence(content: Any) -> None:
    write(content)
    with pytest.raises(InvalidInput) as refused:
        rdma.between([STUDIO])
    assert refused.value.code == "hosts.unreadable" and str(rdma.path()) in str(refused.value)

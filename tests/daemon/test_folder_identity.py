"""Which paths name one output folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from safetrain_shared.errors import Conflict
from safetrain_shared.jobs import JobState
from safetraind.storage import folder_identity
from safetraind.storage.folder_identity import known_name, same_folder
from tests.daemon.conftest import MakeSpec
from tests.daemon.test_faults import error_of
from tests.harness import DaemonProcess

COMPOSED, DECOMPOSED = "lição", "lic\u0327a\u0303o"


@pytest.fixture
def folding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that ignores case and the form of accents, as a Mac's does."""
    monkeypatch.setattr(folder_identity, "_ignores_case", lambda folder: True)


def test_a_folder_that_is_there_is_known_by_what_it_is(tmp_path: Path) -> None:
    folder, other, link = tmp_path / "out", tmp_path / "other", tmp_path / "link"
    folder.mkdir()
    other.mkdir()
    link.symlink_to(folder)
    assert same_folder(folder, link)
    assert same_folder(folder / "new" / "one", link / "new" / "one")
    assert not same_folder(folder, other)
    assert not same_folder(folder / "new", other / "new")
    assert not same_folder(folder, folder / "new")


def test_folders_to_be_made_are_compared_as_the_disk_does(tmp_path: Path) -> None:
    assert not same_folder(tmp_path / "Out", tmp_path / "out")
    assert not same_folder(tmp_path / COMPOSED, tmp_path / DECOMPOSED)


@pytest.mark.usefixtures("folding")
def test_on_a_mac_case_and_the_form_of_accents_make_no_other_folder(tmp_path: Path) -> None:
    assert same_folder(tmp_path / "Out" / "a", tmp_path / "out" / "A")
    assert same_folder(tmp_path / COMPOSED, tmp_path / DECOMPOSED)
    assert not same_folder(tmp_path / "out", tmp_path / "out2")
    known = [str(tmp_path / "x"), str(tmp_path / "OUT")]
    assert known_name(tmp_path / "out", known) == tmp_path / "OUT"
    assert known_name(tmp_path / "new", known) == tmp_path / "new"


def test_two_jobs_do_not_share_a_folder_by_two_names(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    folder, again = tmp_path / "folder", tmp_path / "again"
    folder.mkdir()
    again.mkdir()
    bind = ["mount", "--bind", str(folder), str(again)]
    if subprocess.run(bind, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        job = playing.start().submit(make_spec("folder", name="pace=0.2", num_epochs=100)).job.id
        with pytest.raises(Exception) as caught:
            playing.submit(make_spec("again", num_epochs=2))
        refused = error_of(caught)
        assert isinstance(refused, Conflict)
        assert refused.code == "job.output_taken" and refused.args_by_name["id"] == job
        assert playing.state(job) in (JobState.CHECKING, JobState.RUNNING)
    finally:
        subprocess.run(["umount", "-l", str(again)], check=True)


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%b", "a%23b", "a b", "ção", "a&b=c:d"])
def test_a_home_may_have_any_name(name: str, tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path / name)
    try:
        assert daemon.start().info().home == str(tmp_path / name)
        assert (tmp_path / name / "daemon.sock").is_socket()
    finally:
        daemon.end()

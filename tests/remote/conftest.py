"""The other machine of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.remote.studio import SSHD, Studio, running


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A machine named `studio`, known to ssh and in the list of hosts."""
    if SSHD is None:
        pytest.skip("no sshd here; scripts/sshd.sh installs it where that needs no password")
    with running(tmp_path_factory.mktemp("studio")) as studio:
        yield studio

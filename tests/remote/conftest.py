"""The other machine of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.remote.studio import Studio, running


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A machine named `studio`, known to ssh and in the list of hosts."""
    with running(tmp_path_factory.mktemp("studio")) as studio:
        yield studio

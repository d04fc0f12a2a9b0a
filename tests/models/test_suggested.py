"""The table of models: sizes that add up, and a source for each row."""

from __future__ import annotations

import pytest

from safetraind.models.sizes import weights_in_matrices
from safetraind.models.suggested import SUGGESTED


def test_the_sizes_of_each_row_give_its_published_number_of_parameters() -> None:
    for model in SUGGESTED:
        found = weights_in_matrices(model.sizes) / 1e9
        assert found == pytest.approx(model.billions, abs=0.05), model.repository


def test_every_row_names_its_source_and_when_it_was_read() -> None:
    assert all(model.source.startswith("https://") for model in SUGGESTED)
    assert all(len(model.read) == len("2026-11") for model in SUGGESTED)
    assert all(model.licence for model in SUGGESTED)


def test_no_row_stands_twice_and_one_is_made_for_the_portuguese_of_portugal() -> None:
    assert len({model.repository for model in SUGGESTED}) == len(SUGGESTED)
    assert "pt-PT" in {model.portuguese for model in SUGGESTED}

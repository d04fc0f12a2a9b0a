"""Our trainer has every property of the suite, and the suite can tell one that has not."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.conformance import properties
from benchmarks.conformance.ours import Ours
from benchmarks.conformance.properties import PROPERTIES, Property
from benchmarks.conformance.theirs import Theirs

pytestmark = pytest.mark.compiled


@pytest.mark.parametrize("wanted", PROPERTIES, ids=lambda wanted: wanted.__name__)
def test_ours_has_the_property(wanted: Property, model: Path, tmp_path: Path) -> None:
    wanted(Ours(), model, tmp_path)


@pytest.mark.parametrize(
    "wanted",
    [
        properties.padding_is_never_supervised,
        properties.a_cut_off_answer_does_no_harm,
        properties.the_best_adapter_is_what_one_gets,
        properties.a_killed_run_ends_the_same,
    ],
    ids=lambda wanted: wanted.__name__,
)
def test_the_suite_notices_a_trainer_without_it(
    wanted: Property, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError):
        wanted(Theirs(), model, tmp_path)

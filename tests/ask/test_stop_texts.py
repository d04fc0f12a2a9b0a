"""An answer ends before its first stop text, however the text is cut into pieces."""

from __future__ import annotations

import itertools

import pytest

from safetrain_shared.errors import InvalidInput
from safetraind.worker.inference.generation import question_from_json
from safetraind.worker.inference.stop_texts import StopTexts
from tests.ask.helpers import user

TEXT = "um, dois, três; quatro"


def passed(pieces, stops):
    ending = StopTexts(stops)
    text = "".join([ending.take(piece) for piece in pieces])
    return text + ending.rest(), ending.reached


@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        ((), TEXT),
        (("três",), "um, dois, "),
        (("; ", ", d"), "um"),
        (("zero", "quatro!"), TEXT),
        (("um",), ""),
        ((", t", ", três"), "um, dois"),
    ],
)
def test_wherever_the_text_is_cut_it_ends_at_the_same_place(stops, expected):
    for first, second in itertools.combinations(range(len(TEXT) + 1), 2):
        pieces = [TEXT[:first], TEXT[first:second], TEXT[second:]]
        assert passed(pieces, stops) == (expected, expected != TEXT)


def test_only_what_may_begin_a_stop_text_is_held_back():
    ending = StopTexts(["\n\nQ:"])
    assert [ending.take(piece) for piece in ("a\n", "b\n\n", "c")] == ["a", "\nb", "\n\nc"]


def test_stop_texts_that_are_none_are_refused():
    for wrong in ("text", [""], [3], {"a": 1}):
        with pytest.raises(InvalidInput) as refused:
            question_from_json({"messages": user(), "stop": wrong})
        assert refused.value.args_by_name["field"] == "stop"
    assert question_from_json({"messages": user(), "stop": ["a"]}).stop == ("a",)

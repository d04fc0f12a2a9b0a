"""What a validation curve is told to show."""

from __future__ import annotations

import pytest

from safetrain_shared.events import Evaluated
from safetrain_shared.learning_curve import trouble
from safetrain_shared.messages import say
from safetrain_shared.settings import TrainingSettings

SETTINGS = TrainingSettings(learning_rate=4e-3, num_epochs=6)


@pytest.mark.parametrize(
    ("losses", "train", "ended", "code"),
    [
        ((2.0, 1.5, 1.2, 1.1, 1.09), 1.0, True, ""),
        ((2.0, 1.5, 1.2, 1.0), 0.9, True, "train.too_short"),
        ((2.0, 1.5, 1.2, 1.0), 0.9, False, ""),
        ((2.0, 1.2, 1.3), 0.5, False, ""),  # one small rise may pass
        ((2.0, 1.2, 1.3, 1.25), 0.5, False, "train.overfits"),
        ((2.0, 1.2, 1.4), 0.5, False, "train.overfits"),
        ((2.0, 2.6), 0.3, False, "train.overfits_base"),
        ((2.0, 6.6), 5.9, False, "train.too_hot"),
        ((2.0,), 2.0, True, ""),
        ((2.0, 0.4, 0.004), 0.0, True, ""),  # it fell to the end, and has nothing left to learn
        ((2.0, 0.0, 0.001, 0.004), 0.0, False, ""),
        ((2.0, 0.0, 0.4), 0.0, False, "train.overfits"),
    ],
)
def test_a_curve_is_named_for_what_it_shows(
    losses: tuple[float, ...], train: float, ended: bool, code: str
) -> None:
    curve = [
        Evaluated(9 * n, max(0, n - 1), 9, loss, 4, n > 0 and loss < min(losses[1:n], default=9.0))
        for n, loss in enumerate(losses)
    ]
    found = trouble(curve, train, SETTINGS, ended=ended)
    assert (found.code if found else "") == code
    if found:
        said = say(found)
        assert "?" not in said and "--set" in said


def test_a_rise_to_the_adapter_that_questions_chose_is_no_fault() -> None:
    curve = [Evaluated(0, 0, 0, 2.0, 4, False), Evaluated(9, 0, 9, 1.0, 4, True)]
    for best, code in ((False, "train.overfits"), (True, "")):
        found = trouble([*curve, Evaluated(18, 1, 9, 1.2, 4, best)], 0.1, SETTINGS, ended=True)
        assert (found.code if found else "") == code


def test_the_setting_to_change_is_named_with_its_value() -> None:
    curve = [Evaluated(0, 0, 0, 2.0, 4, False), Evaluated(9, 0, 9, 1.0, 4, True)]
    curve += [Evaluated(9 * n, n - 1, 9, 1.0 + n / 5, 4, False) for n in (2, 3)]
    found = trouble(curve, 0.1, SETTINGS, ended=False)
    assert found is not None
    assert "--set num_epochs=1 " in say(found) and "at step 9 to 1.6" in say(found)
    hot = trouble([curve[0], Evaluated(9, 0, 9, 7.0, 4, True)], 6.0, SETTINGS, ended=False)
    assert hot is not None and "--set learning_rate=0.001" in say(hot)

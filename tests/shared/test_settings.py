"""Settings: what is accepted, and what is refused with which words."""

import pytest

from safetrain_shared.errors import InvalidSetting
from safetrain_shared.settings import checked, parse


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("learning_rate", "2e-4", 2e-4),
        ("learning_rate", "0,0002", 2e-4),
        ("batch_size", "4", 4),
        ("batch_size", "4.0", 4),
        ("packing", "true", True),
        ("packing", "não", False),
        ("lora_targets", "self_attn.q_proj, mlp.up_proj", ("self_attn.q_proj", "mlp.up_proj")),
        ("schedule", "linear", "linear"),
        ("seed", "9223372036854775807", 2**63 - 1),
    ],
)
def test_a_written_value_is_read(name: str, text: str, value: object) -> None:
    assert parse(name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("batchsize", "4", "setting.unknown_near"),
        ("colour", "4", "setting.unknown"),
        ("batch_size", "0", "setting.range"),
        ("batch_size", "four", "setting.type"),
        ("batch_size", "4.5", "setting.type"),
        ("learning_rate", "nan", "setting.type"),
        ("learning_rate", "0,000,2", "setting.type"),
        ("batch_size", "4,5", "setting.type"),
        ("learning_rate", "2", "setting.range"),
        ("packing", "perhaps", "setting.type"),
        ("schedule", "square", "setting.choice"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, text: str, code: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        parse(name, text)
    assert refused.value.code == code
    assert refused.value.args_by_name["name"] == name


def test_a_truth_value_is_no_number() -> None:
    with pytest.raises(InvalidSetting):
        checked("batch_size", True)

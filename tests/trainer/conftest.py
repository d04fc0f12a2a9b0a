"""A tiny model and tiny data for the trainer's tests, made once."""

from pathlib import Path

import pytest

from tests.tiny import make_chat_data, make_tiny_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers, 32 wide."""
    return make_tiny_model(tmp_path_factory.mktemp("model"), layers=2, hidden=32)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """22 training and 6 validation conversations: no multiple of a window of 4."""
    return make_chat_data(tmp_path_factory.mktemp("data"), train=22, valid=6)

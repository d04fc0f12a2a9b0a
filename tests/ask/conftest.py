import mlx.core as mx
import pytest

from safetraind.worker.loading import load
from tests.ask.helpers import make_adapter
from tests.tiny import make_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", layers=2)


@pytest.fixture(scope="session")
def adapters(tiny_model, tmp_path_factory):
    """Adapters of both kinds that change what the tiny model says, by kind."""
    folder = tmp_path_factory.mktemp("adapters")
    return {kind: make_adapter(tiny_model, folder / kind, kind) for kind in ("lora", "dora")}


@pytest.fixture
def loaded(tiny_model):
    return load(str(tiny_model), dequantize=False)


@pytest.fixture(autouse=True)
def the_random_state_stays():
    """Nothing in answering may move MLX's global random state: a training depends on it."""
    mx.random.seed(7)
    yield

"""What every system is tried on: the small synthetic sets as real files, and batches drawn from a fixed generator."""

import pytest
import torch
from drawn import draw_batch, info_for

from filmstrip import systems


def pytest_addoption(parser):
    parser.addoption(
        "--write-golden", action="store_true", help="write tests/golden/*.txt anew instead of comparing with them"
    )


@pytest.fixture(params=systems.names())
def name(request):
    """Every system there is: a new one is covered without an edit."""
    return request.param


@pytest.fixture
def run(name):
    preset = systems.find(name if ":" in name else f"{name}:tiny")
    return preset.bound(info_for(preset.data.reads))


@pytest.fixture
def objective(run):
    torch.manual_seed(0)
    return run.objective.build()


@pytest.fixture
def batches(run):
    return [draw_batch(run.data, size=4, seed=seed) for seed in range(2)]


@pytest.fixture(scope="session")
def synthetic_cache(tmp_path_factory):
    """Generated data sets live here for the session, not in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FILMSTRIP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield

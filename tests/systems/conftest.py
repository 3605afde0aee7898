"""What every system is tried on: the small synthetic sets as real files, and batches drawn from a fixed generator."""

import pytest
import torch
from drawn import NUM_CLASSES, TOKENS, WIDTH, WINDOW, draw_batch

from filmstrip import systems
from filmstrip.data.config import DataInfo


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
    names = tuple(str(i) for i in range(NUM_CLASSES))
    procedures = {"steps": names, "tasks": names, "window": WINDOW, "width": WIDTH, "grid": (TOKENS, 1, 1)}
    info = DataInfo(classes=names, num_train=96, directional=True, **procedures)
    return systems.find(f"{name}:tiny").bound(info)


@pytest.fixture
def objective(run):
    torch.manual_seed(0)
    return run.objective.build()


@pytest.fixture
def batches(run):
    return [draw_batch(run.data.clip, size=4, seed=seed) for seed in range(2)]


@pytest.fixture(scope="session")
def synthetic_cache(tmp_path_factory):
    """Generated data sets live here for the session, not in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FILMSTRIP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield

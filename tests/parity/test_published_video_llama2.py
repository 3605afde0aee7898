"""The connector of Video-LLaMA 2 against the authors' code (``STCConnectorV35``), whose outputs are stored."""

import pytest
import torch
from published import TOLERANCE, recipe_input, stored

from filmstrip.protocols import Grid
from filmstrip.systems.language.video_llama2.connector import SpaceTimeConv, from_published, published_name


@pytest.fixture(scope="module")
def kept():
    return stored("video_llama2_stc")


@pytest.fixture(scope="module")
def connector(kept):
    network = SpaceTimeConv(12, 16, depth=2).eval()
    network.load_state_dict(from_published(kept.weights(), network))
    return network


@torch.no_grad()
def test_outputs_agree(kept, connector):
    seen = {}
    connector.before.register_forward_hook(lambda module, given, made: seen.update(before=made))
    connector.after.register_forward_pre_hook(lambda module, given: seen.update(reduced=given[0]))
    tokens = connector(recipe_input("x", (2, 4, 36, 12)).flatten(1, 2), Grid(4, 6, 6))
    assert tokens.shape[1] == 18 == connector.num_tokens(Grid(4, 6, 6))
    reduced = seen["reduced"].unflatten(0, (2, 2)).permute(0, 4, 1, 2, 3)
    for name, output in (("before", seen["before"]), ("reduced", reduced), ("tokens", tokens)):
        assert kept.error(name, output) < TOLERANCE, name


def test_norms_agree(kept, connector):
    assert kept.other_eps(connector, {name: published_name(name) for name in connector.state_dict()}) == {}

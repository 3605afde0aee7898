"""RAFT's two published sizes against torchvision's code, by stored outputs, and its layout.

Recipe: pytorch/vision ``947ae1d``, ``raft_large()`` and ``raft_small()`` in evaluation mode. ``video`` of 3 frames of
128 x 136 pixels (``recipe_video``), over 255, as two pairs of neighbouring frames in -1..1. ``first``, ``last``: the
flow after the first and after the last one of twelve updates.
"""

import pytest
import torch
from published import TOLERANCE, eps_of, recipe_video, stored

from filmstrip.models.raft import LARGE, RAFT, SMALL, size_of
from filmstrip.weights.released import from_published, to_published

SIZES = {"raft_large": (LARGE, 5_257_536), "raft_small": (SMALL, 990_162)}


@pytest.mark.parametrize("name", SIZES)
@torch.no_grad()
def test_the_published_networks(name):
    kept, (size, parameters) = stored(name), SIZES[name]
    theirs = kept.weights()
    assert size_of(theirs) == size
    network = RAFT(size).eval()
    assert sum(p.numel() for p in network.parameters()) == parameters  # as published with the weights
    network.load_state_dict(from_published(theirs, network), strict=False)
    assert set(eps_of(network).values()) == set(kept.eps.values()) == {1e-5}
    found = network(recipe_video("video", (1, 3, 3, 128, 136)), every=True)
    assert len(found) == 12 and found[0].shape == (1, 2, 2, 128, 136)
    assert kept.error("first", found[0]) < TOLERANCE
    assert kept.error("last", found[-1]) < TOLERANCE
    written = to_published(network)
    assert all(torch.equal(written[key], value) for key, value in theirs.items())

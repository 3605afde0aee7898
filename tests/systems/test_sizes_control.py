"""World models have the papers' sizes: millions of parameters."""

import pytest
import torch
from sizes import unnamed

from filmstrip import systems

# Millions of parameters of encoder and predictor, counted over the published networks; the paper says 1B and 300M.
WORLD_MODELS = {"control.vjepa_ac:giant_droid": (1012.17, 305.213824)}


@pytest.mark.parametrize("address", WORLD_MODELS)
def test_world_models(address):
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
    counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (objective.encoder, objective.predictor)]
    assert counts == [pytest.approx(count, rel=1e-4) for count in WORLD_MODELS[address]]


def test_every_preset_is_named():
    assert not unnamed("control", WORLD_MODELS)

"""Localisers have the papers' sizes: millions of parameters."""

import pytest
import torch
from sizes import unnamed

from filmstrip import systems

# Millions of parameters of the released code, which its papers do not state; ActivityNet's with 200 classes for one.
LOCALISERS = {
    "localisation.actionformer:thumos14": 29.251612,
    "localisation.actionformer:activitynet": 6.943497 + 199 * (3 * 256 + 1) / 1e6,
}


@pytest.mark.parametrize("address", LOCALISERS)
def test_localisers(address):
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
    assert sum(p.numel() for p in objective.parameters()) / 1e6 == pytest.approx(LOCALISERS[address], rel=1e-6)


def test_every_preset_is_named():
    assert not unnamed("localisation", LOCALISERS)

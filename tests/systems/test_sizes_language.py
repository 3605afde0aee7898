"""Models of video and language have the papers' sizes: millions of parameters."""

import pytest
import torch
from sizes import unnamed

from filmstrip import systems

# Of the released models, in all and of the image tower.
TWO_TOWERS = {
    "language.siglip:b16_224": (203.156, 92.884),
    "language.siglip:b16_256": (203.202, 92.930),
    "language.siglip:l16_256": (652.151, 315.956),
    "language.siglip:so400m_384": (877.960, 428.226),
    "language.clip:b32_224": (151.277, 87.456),
    "language.clip:b16_224": (149.621, 85.799),
    "language.clip:l14_224": (427.617, 303.180),
}


@pytest.mark.parametrize("address", TWO_TOWERS)
def test_two_towers(address):
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
    counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (objective, objective.encoder)]
    assert counts == [pytest.approx(count, rel=1e-4) for count in TWO_TOWERS[address]]


def test_every_preset_is_named():
    assert not unnamed("language", TWO_TOWERS)

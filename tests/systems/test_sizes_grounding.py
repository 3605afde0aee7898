"""Grounders have the published networks' sizes: millions of parameters."""

import pytest
import torch
from sizes import unnamed

from filmstrip import systems

# Counted in the published code, which has more that no output and no loss depends on (their parity tests name it);
# Moment-DETR's paper states 4.8.
VIDEOLIGHTS_UNUSED = (2 * 256 + (256 + 1) * 64 + 256 + 4 * (256 + 1) * 256 + 256 * 256) / 1e6
GROUNDERS = {
    "grounding.moment_detr:qvhighlights": 4.814600,
    "grounding.videolights:qvhighlights": 10.787559 - VIDEOLIGHTS_UNUSED,
    "grounding.videolights:qvhighlights_without_blip": 10.391271 - VIDEOLIGHTS_UNUSED,
    "grounding.videolights:charades_sta": 10.787559 - VIDEOLIGHTS_UNUSED,
    "grounding.lvtr:activitynet_captions": 7.912962,
    "grounding.lvtr:activitynet_captions_base": 4.226562,
    "grounding.lvtr:activitynet_captions_huge": 11.599362,
    "grounding.lvtr:charades_sta": 7.912962,
}


@pytest.mark.parametrize("address", GROUNDERS)
def test_grounders(address):
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
    assert sum(p.numel() for p in objective.parameters()) / 1e6 == pytest.approx(GROUNDERS[address], rel=1e-6)


def test_every_preset_is_named():
    assert not unnamed("grounding", GROUNDERS)

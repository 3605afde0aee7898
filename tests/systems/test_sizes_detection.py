"""Detectors have the papers' sizes: millions of parameters."""

import pytest
import torch
from sizes import unnamed

from filmstrip import systems
from filmstrip.measure import complexity

# Millions of parameters: PyTorchVideo's table of the backbones with 400 classes (the ResNet-101 from its 16 x 8,
# which has the same layers), with 80 for them. What a box costs is not stated.
DETECTORS = {
    "detection.actor_roi:slowfast_r50_4x16_ava": 34.48 - 320 * 2305 / 1e6,
    "detection.actor_roi:slowfast_r50_8x8_ava": 34.57 - 320 * 2305 / 1e6,
    "detection.actor_roi:slowfast_r101_8x8_ava": 53.77 - 320 * 2305 / 1e6,
}


def of_contacts(width, nouns=128, verbs=81):
    """Millions of parameters of StillFast's pyramid, proposals and head, and of five maps, by hand."""
    maps = 10 * width + 256 * width * (4 + 1 + 4 + 16 + 64) + 5 * 256
    pyramid = 5 * (256 * 256 * 10 + 2 * 256)
    proposals = 256 * 256 * 9 + 256 + 15 * 257
    hidden = 256 * 49 * 1024 + 1280 * 1024 + 2 * 1024**2 + 4 * 1024
    return (maps + pyramid + proposals + hidden + 1025 * (5 * (nouns + 1) + verbs + 2)) / 1e6


# Toto's sizes (pretraining) and the above: its paper does not say what the detector costs.
CONTACTS = {
    "detection.next_contact:toto_base_ego4d_v1": 119.56 + of_contacts(768),
    "detection.next_contact:toto_large_ego4d_v1": 276.86 + of_contacts(1024),
    "detection.next_contact:toto_1b_ego4d_v1": 1129.94 + of_contacts(2048),
}


@pytest.mark.parametrize("address", DETECTORS)
def test_detectors(address):
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
    assert sum(p.numel() for p in objective.parameters()) / 1e6 == pytest.approx(DETECTORS[address], abs=0.006)


@pytest.mark.parametrize("address", CONTACTS)
def test_detectors_of_next_contacts(address):
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
    tokenizer = {id(p) for p in objective.tokenizer.parameters()}
    count = sum(p.numel() for p in objective.parameters() if id(p) not in tokenizer)
    assert count / 1e6 == pytest.approx(CONTACTS[address], abs=0.01)


def test_a_detector_costs_more_only_in_its_last_stage():
    fine = complexity.of_run(systems.find("detection.actor_roi:slowfast_r50_4x16_ava"))
    coarse = complexity.of_run(systems.find("recognition.slowfast:r50_4x16_k400"))
    # Twice as fine in height and width: all that the last stage does on 7 x 7 places it does on 14 x 14.
    assert fine.tokens == 4 * coarse.tokens
    assert fine.encoder_multiply_adds / coarse.encoder_multiply_adds == pytest.approx(1.6, abs=0.15)
    # Boxes are read off a map of 14 x 14: first the rows, then the columns of 7 cells.
    reading = 2304 * (7 * 14 * 14 + 7 * 7 * 14) + 2304 * 80
    assert fine.multiply_adds - fine.encoder_multiply_adds == pytest.approx(reading, rel=0.01)


def test_every_preset_is_named():
    # Of `reaches` no paper states a size: it is of our own data.
    assert not unnamed("detection", DETECTORS, CONTACTS, {"detection.next_contact:reaches"})

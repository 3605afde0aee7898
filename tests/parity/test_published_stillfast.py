"""The detector of next contacts gives what StillFast's head, and torchvision's pyramid and proposals, gave."""

import pytest
import torch
from published import TOLERANCE, recipe_input, stored

from filmstrip.systems.detection.next_contact.heads import ContactHead
from filmstrip.systems.detection.next_contact.pyramid import Proposals, Pyramid

SIZE = (64, 64)
NAMES = {
    "pyramid.inner.": (r"fpn.inner_blocks.{}.0.", 5),
    "pyramid.outer.": (r"fpn.layer_blocks.{}.0.", 5),
}
PARTS = {
    "proposals.conv": "rpn.head.conv.0.0",
    "proposals.score": "rpn.head.cls_logits",
    "proposals.offset": "rpn.head.bbox_pred",
    "head.hidden.0": "roi_heads.box_head.fc6",
    "head.hidden.2": "roi_heads.box_head.fc7",
    "head.mapper.0": "roi_heads.mapper.0",
    "head.mapper.2": "roi_heads.mapper.2",
    "head.noun": "roi_heads.box_predictor.cls_score",
    "head.offset": "roi_heads.box_predictor.bbox_pred",
    "head.verb": "roi_heads.verb_predictor",
    "head.seconds": "roi_heads.ttc_predictor.0",
}


class Detector(torch.nn.Module):
    """The parts after the encoder's maps."""

    def __init__(self):
        super().__init__()
        self.pyramid = Pyramid([8] * 5, 256)
        self.proposals = Proposals(256, anchor_strides=2.5, candidates=40, proposals=60, samples=1000)
        self.head = ContactHead(256, 1024, num_nouns=5, num_verbs=4, box_strides=3.5, samples=2, chosen=1000)


def published_name(name):
    """Theirs of one of our parameters."""
    for ours, (theirs, _) in NAMES.items():
        if name.startswith(ours):
            number, _, rest = name.removeprefix(ours).partition(".")
            return theirs.format(number) + rest
    part, _, rest = name.rpartition(".")
    return f"{PARTS[part]}.{rest}"


@pytest.fixture(scope="module")
def kept():
    return stored("stillfast")


@pytest.fixture(scope="module")
def detector(kept):
    network = Detector()
    names = {name: published_name(name) for name in network.state_dict()}
    assert set(names.values()) == set(kept.shapes)
    weights = kept.weights()
    network.load_state_dict({ours: weights[theirs] for ours, theirs in names.items()})
    return network


@pytest.fixture(scope="module")
@torch.no_grad()
def maps(detector):
    return detector.pyramid([recipe_input(f"map{i}", (2, 8, 16 >> i, 16 >> i)) for i in range(5)])


@pytest.fixture(scope="module")
def batch():
    """Two annotated frames; classes from zero, where the published code has them from one."""
    boxes = [[[8, 10, 30, 28], [36, 4, 60, 50]], [[20, 22, 34, 37], [2, 2, 62, 62]]]
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32),
        "is_object": torch.ones(2, 2, dtype=torch.bool),
        "noun": torch.tensor([[3, 1], [5, 2]]) - 1,
        "verb": torch.tensor([[2, 4], [1, 3]]) - 1,
        "contact": torch.tensor([[0.7, 1.9], [0.4, 1.1]]),
        "seed": torch.tensor([0, 1]),
    }


@pytest.fixture(scope="module")
def given(batch):
    """Boxes of which contacts are told, the first ones near the annotated ones."""
    share = recipe_input("boxes", (2, 30, 4)) / (2 * 3**0.5) + 0.5
    first = share[..., :2] * 48
    boxes = torch.cat([first, (first + 4 + share[..., 2:] * 40).clamp(max=64)], dim=-1)
    boxes[:, :4] = (batch["boxes"].repeat(1, 2, 1) + torch.tensor([1.0, -1.0, 2.0, 1.0])).clamp(0, 64)
    return boxes


def test_the_pyramid(kept, maps):
    for i, level in enumerate(maps):
        assert kept.error(f"map{i}", level) < TOLERANCE


@torch.no_grad()
def test_scores_and_offsets_of_anchors_and_what_is_proposed(kept, detector, maps):
    scores, offsets, anchors = detector.proposals(maps, SIZE)
    assert kept.error("objectness", torch.cat(scores, dim=1)) < TOLERANCE
    assert kept.error("deltas", torch.cat(offsets, dim=1)) < TOLERANCE
    boxes, there = detector.proposals.propose(scores, offsets, anchors, SIZE)
    for i in range(2):
        assert kept.error(f"proposals{i}", boxes[i][there[i]]) < TOLERANCE


@torch.no_grad()
def test_losses_of_proposals(kept, detector, maps, batch):
    losses = detector.proposals.losses(*detector.proposals(maps, SIZE), batch["boxes"], batch)
    assert kept.error("rpn_losses", torch.stack(losses)) < TOLERANCE


@torch.no_grad()
def test_contacts(kept, detector, maps, given):
    said = detector.head(maps, given, SIZE)
    there = torch.ones(given.shape[:2], dtype=torch.bool)
    found = detector.head.contacts(said, given, there, SIZE, min_score=0.05, candidates=200, count=20)
    for i in range(2):
        seen = found.scores[i] > 0
        assert kept.error(f"boxes{i}", found.boxes[i][seen] * 64) < TOLERANCE
        assert kept.error(f"scores{i}", found.scores[i][seen]) < TOLERANCE
        assert kept.error(f"ttcs{i}", found.seconds[i][seen]) < TOLERANCE
        assert torch.equal(kept.outputs[f"nouns{i}"], found.nouns[i][seen] + 1.0)
        assert torch.equal(kept.outputs[f"verbs{i}"], found.verbs[i][seen] + 1.0)


@torch.no_grad()
def test_losses_of_contacts(kept, detector, maps, given, batch):
    there = torch.ones(given.shape[:2], dtype=torch.bool)
    chosen = detector.head.choose(given, there, batch["boxes"], batch)
    losses = detector.head.losses(detector.head(maps, chosen[0], SIZE), chosen, batch["boxes"], batch)
    weighted = [losses["noun"], 0.1 * losses["verb"], losses["box"], 0.5 * losses["seconds"]]
    assert kept.error("losses", torch.stack(weighted)) < TOLERANCE

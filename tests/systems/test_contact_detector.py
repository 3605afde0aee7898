"""Next contacts: geometry in static shapes, which layers are read, and what is learnt from."""

from dataclasses import replace

import pytest
import torch
from drawn import draw_batch, info_for

from filmstrip import systems
from filmstrip.data.boxes import iou
from filmstrip.errors import UserError
from filmstrip.protocols import ContactForecaster
from filmstrip.systems.detection.next_contact import boxes as geometry
from filmstrip.systems.detection.next_contact.presets import tiny, tiny_toto


def random_boxes(count, seed, size=64.0):
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(2, count, 2, generator=generator) * size * 0.7
    return torch.cat([first, first + 4 + torch.rand(2, count, 2, generator=generator) * size * 0.3], dim=-1)


def one_by_one(boxes, threshold, groups=None):
    """Greedy suppression of one frame, in order."""
    kept = []
    overlap = iou(boxes, boxes)
    for i in range(len(boxes)):
        same = [j for j in kept if groups is None or groups[i] == groups[j]]
        if all(overlap[i, j] <= threshold for j in same):
            kept.append(i)
    return kept


@pytest.mark.parametrize("grouped", [False, True])
def test_survivors_are_those_of_a_greedy_loop(grouped):
    boxes = random_boxes(150, 0)
    scores = torch.linspace(1, 0.1, 150).repeat(2, 1)
    scores[1, 100:] = -torch.inf  # there are fewer boxes in this frame
    groups = torch.arange(150).repeat(2, 1) % 3 if grouped else None
    found = geometry.survivors(boxes, scores, 0.3, groups)
    for i, count in enumerate((150, 100)):
        expected = one_by_one(boxes[i, :count], 0.3, None if groups is None else groups[i].tolist())
        assert found[i].nonzero()[:, 0].tolist() == expected
        assert len(expected) < 0.8 * count


def test_offsets_give_the_boxes_back():
    boxes, references = random_boxes(20, 1), random_boxes(20, 2)
    for weights in ((1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)):
        offsets = geometry.offsets_of(boxes, references, weights)
        torch.testing.assert_close(geometry.boxes_of(offsets, references, weights), boxes, rtol=1e-4, atol=1e-3)


def test_each_annotated_box_has_an_anchor_and_padding_has_none():
    anchors = geometry.anchors_of((8, 8), 8.0, 20.0, torch.device("cpu")).expand(1, -1, -1)
    boxes = torch.tensor([[[3.0, 3.0, 9.0, 8.0], [20.0, 20.0, 40.0, 40.0], [0.0, 0.0, 0.0, 0.0]]])
    overlap = torch.where(torch.tensor([True, True, False]), geometry.overlaps(anchors, boxes), -1.0)
    found = geometry.match(overlap, above=0.7, below=0.3, nearest=True)
    assert {0, 1} == set(found.index[found.positive].tolist())
    assert not (found.positive & found.negative).any()
    assert overlap[0, :, 0].max() < 0.3  # which is only reached as the nearest


def test_a_sample_has_its_share_of_positives_and_no_more():
    generator = torch.Generator().manual_seed(0)
    positive = torch.rand(3, 200, generator=generator) < torch.tensor([[0.01], [0.5], [0.0]])
    matches = geometry.Matches(torch.zeros(3, 200, dtype=torch.int64), positive, ~positive)
    chosen, others = geometry.sample(matches, torch.rand(3, 200, generator=generator), count=40, share=0.25)
    assert (chosen.sum(1) + others.sum(1) == 40).all() and chosen.sum(1).tolist()[1:] == [10, 0]
    assert not (chosen & ~positive).any() and not (others & positive).any()


def bound(run):
    return run.bound(info_for(run.data.reads)).objective


def test_padding_does_not_change_the_loss():
    run = tiny()
    torch.manual_seed(0)
    network = bound(run).build()
    batch = draw_batch(run.data, size=2, seed=0)
    longer = dict(batch)
    for key in ("boxes", "is_object", "noun", "verb", "contact"):
        longer[key] = torch.cat([batch[key], torch.zeros_like(batch[key])], dim=1)
    # Other boxes would be chosen by chance among more; all of a few are.
    network.head.chosen = network.proposals.samples = 10_000
    assert network(longer).total.item() == pytest.approx(network(batch).total.item(), rel=1e-5)


def test_a_frame_without_objects_has_a_loss_of_objectness_and_background_alone():
    run = tiny()
    network = bound(run).build()
    batch = draw_batch(run.data, size=2, seed=0)
    batch |= {key: torch.zeros_like(batch[key]) for key in ("boxes", "is_object")}
    loss = network(batch)
    assert loss.total.isfinite()
    assert loss.metrics["box"] == loss.metrics["seconds"] == loss.metrics["proposed_box"] == 0


def test_contacts_are_fractions_in_order_of_score():
    run = tiny()
    network = replace(bound(run), min_score=0.0).build().eval()
    assert isinstance(network, ContactForecaster)
    with torch.no_grad():
        found = network.next_contacts(draw_batch(run.data, size=2, seed=0)["video"])
    assert found.boxes.shape == (2, 20, 4) and (found.scores > 0).any()
    assert (found.boxes >= 0).all() and (found.boxes <= 1).all() and (found.seconds >= 0).all()
    assert (found.scores.diff(dim=1) <= 0).all()


def test_a_frozen_encoder_has_no_gradients_and_stays_in_evaluation():
    run = tiny()
    network = replace(bound(run), frozen=True).build().train()
    network(draw_batch(run.data, size=2, seed=0)).total.backward()
    assert not network.encoder.training and network.head.training
    assert all(p.grad is None for p in network.encoder.parameters())
    assert replace(bound(run), frozen=True).frozen_parts().keys() == {"learner"}


def test_an_encoder_that_goes_on_learning_adds_its_own_loss():
    run = tiny_toto()
    torch.manual_seed(0)
    network = bound(run).build()
    batch = draw_batch(run.data, size=2, seed=0)
    loss = network(batch)
    with torch.no_grad():
        own = network.learner(batch).total
    assert loss.metrics["learner"].item() == pytest.approx(own.item(), rel=1e-5)


def test_only_the_last_frame_makes_the_maps():
    run = tiny_toto()  # whose tokens see nothing that comes later
    network = bound(run).build().eval()
    video = draw_batch(run.data, size=1, seed=0)["video"]
    with torch.no_grad():
        maps = network._last_frame(network.features_of(video))
    assert [tuple(x.shape) for x in maps] == [(1, 8, 8, 64)] * 5
    with torch.no_grad():
        layers = network.encoder(video, layers=True).layers
    assert torch.equal(maps[0][0].flatten(0, 1), layers[0][0, -64:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": (1, 2, 3, 4, 9)}, "five of the 5 layers"),
        ({"layers": (1, 2)}, "has 5 levels"),
        ({"learner_weight": 1.0}, "learner_weight to 0"),
        ({"learner_weight": 1.0, "frozen": True}, "does not learn"),
    ],
)
def test_what_cannot_be_built_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        replace(tiny().objective, **settings).build()


def test_data_without_contacts_are_refused():
    other = systems.find("recognition.vit:tiny")
    with pytest.raises(UserError, match="no contacts"):
        tiny().objective.bind(info_for(other.data.reads))

"""ActionFormer finds what it was taught, in seconds of the video, whatever the padding."""

from dataclasses import replace

import pytest
import torch
from drawn import SIZES, WIDTH, info_for

from filmstrip.data.kinds.untrimmed import draw_sequences
from filmstrip.errors import UserError
from filmstrip.measure import complexity
from filmstrip.nn.segments import iou
from filmstrip.systems.localisation.actionformer import activitynet, thumos14, tiny


@pytest.fixture(scope="module")
def taught():
    """A network that has seen one batch for long enough, and the batch."""
    info = info_for(tiny().data.reads)
    torch.manual_seed(0)
    model = tiny().objective.bind(info).build()
    batch = draw_sequences({**SIZES, "B": 2}, torch.Generator().manual_seed(3))
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(40):
        optimiser.zero_grad()
        model(batch).total.backward()
        optimiser.step()
    return model.eval(), batch


def test_what_was_taught_is_found_in_seconds(taught):
    model, batch = taught
    for i, found in enumerate(model.localise(batch)):
        true = batch["timing"][i, 0] + batch["segments"][i, :2].double() * batch["timing"][i, 1]
        overlap = iou(true.clamp(max=float(batch["seconds"][i])), found.segments[:6])
        best = overlap.amax(dim=1)
        assert (best > 0.5).all()
        assert found.classes[overlap.argmax(dim=1)].tolist() == batch["classes"][i, :2].tolist()
        assert (found.scores.diff() <= 0).all() and found.segments.min() >= 0


def test_padding_changes_nothing(taught):
    model, batch = taught
    longer = dict(batch, sequence=torch.cat([batch["sequence"], torch.full((2, 17, WIDTH), 5.0)], dim=1))
    for one, other in zip(model.localise(batch), model.localise(longer)):
        torch.testing.assert_close(one.segments[:5], other.segments[:5], rtol=1e-3, atol=1e-3)
        assert one.classes[:5].equal(other.classes[:5])
    assert float(model(longer).total.detach()) == pytest.approx(float(model(batch).total.detach()), rel=1e-4)


def test_losses_are_divided_by_a_running_number_of_points(taught):
    model, batch = taught
    before = float(model.num_positive)
    count = float(model(batch).metrics["positive"])
    assert float(model.num_positive) == before  # not while it is evaluated
    model.train()
    model(batch)
    model.eval()
    assert float(model.num_positive) == pytest.approx(0.9 * before + 0.1 * count)


def test_a_video_without_actions_teaches_that_there_are_none(taught):
    model, batch = taught
    empty = dict(batch, classes=torch.full_like(batch["classes"], -1))
    loss = model(empty)
    assert loss.metrics["positive"] == 0 and loss.metrics["diou"] == 0 and loss.total.isfinite()


def test_sizes_come_from_the_data_or_are_asked_for():
    assert activitynet().objective.num_classes == 200
    with pytest.raises(UserError, match=r"data\.reads"):
        replace(thumos14().objective, num_classes=0).build()


def test_the_cost_is_that_of_the_papers_network():
    cost = complexity.of_run(thumos14())
    rows, width, total = 2304, 512, 0
    total += rows * 3 * (2048 * width + width**2)
    levels = [rows // 2**level for level in range(6)]
    for out in (rows, *levels):  # the stem has one block more than there are levels above it
        total += out * (3 * 3 * width + 12 * width**2) + 2 * out**2 * width
    total += sum(levels) * 3 * (4 * width**2 + width * (20 + 2))
    assert cost.multiply_adds == pytest.approx(total, rel=1e-3)

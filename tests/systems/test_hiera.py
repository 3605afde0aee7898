"""Hiera's mask units: what is left out, what is pooled, and what sizes go together."""

from dataclasses import replace

import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.systems.pretraining import hiera as pretraining
from filmstrip.systems.recognition import hiera as recognition

NETWORK = replace(recognition.tiny().objective, width=16)
MASKED = replace(pretraining.tiny().objective, width=16, decoder_width=24)


def clips(count=2, size=64):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 8, 3, size, size), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def test_all_units_visible_are_the_whole_clip():
    encoder = NETWORK.build().encoder.eval()
    units = torch.arange(16).expand(2, -1)
    whole, apart = encoder(clips(), layers=True), encoder(clips(), layers=True, visible=units)
    assert whole.grid == (4, 2, 2) and whole.tokens.shape == (2, 16, encoder.width)
    torch.testing.assert_close(apart.tokens, whole.tokens, rtol=1e-4, atol=1e-5)  # one token a unit: the same order
    sides = [64 // 4, 64 // 8, 64 // 16, 64 // 16, 64 // 32]
    assert [tokens.shape[1] for tokens in whole.layers] == [4 * side**2 for side in sides]


@torch.no_grad()
def test_the_encoder_of_visible_units_reads_no_other_pixels():
    objective = MASKED.build().eval()
    visible, masked = objective.masks(torch.tensor([5, 9]))
    video = clips()
    other = video.clone().unflatten(1, (4, 2)).unflatten(4, (2, 32)).unflatten(6, (2, 32))
    for clip, units in enumerate(masked.tolist()):
        for unit in units:
            other[clip, unit // 4, :, :, unit // 2 % 2, :, unit % 2] = 255
    other = other.flatten(6, 7).flatten(4, 5).flatten(1, 2)
    assert not torch.equal(video, other)
    assert torch.equal(objective.fused(video, visible), objective.fused(other, visible))
    assert not torch.equal(objective.targets(video, masked), objective.targets(other, masked))


@torch.no_grad()
def test_stages_are_in_their_places():
    """The first stage attends within units alone, so that a unit's tokens are those of the whole clip's there."""
    encoder = NETWORK.build().encoder.eval()
    encoder.embed.weight[:, :, [0, 2]] = 0  # the embedding alone looks over a unit's edges: here at nothing
    encoder.embed.weight[:, :, :, :3] = encoder.embed.weight[:, :, :, :, :3] = 0
    whole = encoder(clips(), layers=True).layers[0].view(2, 4, 2, 8, 2, 8, -1)
    visible = torch.tensor([[2, 7], [3, 12]])
    stage = encoder.stages(clips(), visible)[0]
    assert stage.shape == (2, 2, 1, 8, 8, 16)
    for clip, units in enumerate(visible.tolist()):
        for i, unit in enumerate(units):
            expected = whole[clip, unit // 4, unit // 2 % 2, :, unit % 2]
            torch.testing.assert_close(stage[clip, i, 0], expected, rtol=1e-4, atol=1e-5)


def test_masks_have_exact_counts_and_belong_to_the_clip():
    objective = MASKED.build()
    visible, masked = objective.masks(torch.tensor([1, 2, 3]))
    assert visible.shape == (3, 4) and masked.shape == (3, 12)
    for seen, hidden in zip(visible.tolist(), masked.tolist()):
        assert sorted(seen + hidden) == list(range(16)) and seen == sorted(seen)
    assert torch.equal(objective.masks(torch.tensor([2]))[0], visible[1:2])
    published = replace(pretraining.BASE, width=4, depths=(1, 1, 1, 1), num_heads=1)
    published = replace(published, decoder_width=16, decoder_depth=1).build()
    assert [part.shape[1] for part in published.masks(torch.tensor([0]))] == [39, 353]


def test_one_time_step_more_of_a_unit_is_one_unit_of_two_steps():
    taller = replace(MASKED, unit_size=(2, 8, 8)).build()
    assert tuple(taller.encoder.units) == (2, 2, 2)
    visible, masked = taller.masks(torch.tensor([4, 4]))
    assert taller.predict_masked(clips(), visible, masked).shape == (2, 6, 8 * 3 * 16 * 16)
    assert taller.loss(clips(), visible, masked).isfinite()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 48}, "not a multiple of mask units of 2 x 32 x 32"),
        ({"num_frames": 7}, "not a multiple of mask units"),
        ({"unit_size": (1, 4, 4)}, "cannot be halved 3 times"),
        ({"depths": (1, 1)}, "cannot be halved 3 times"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        replace(NETWORK, **changes).build()


def test_a_mask_that_leaves_nothing_is_refused():
    with pytest.raises(UserError, match="leaves none visible"):
        replace(MASKED, mask_ratio=0.99).build()
    with pytest.raises(UserError, match="leaves none masked"):
        replace(MASKED, mask_ratio=0.0).build()


def test_a_clip_of_another_size_is_refused():
    with pytest.raises(ValueError, match="built for clips of 8 x 64 x 64, got 8 x 96 x 96"):
        NETWORK.build().encoder(clips(size=96))

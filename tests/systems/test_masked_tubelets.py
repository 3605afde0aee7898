from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from filmstrip.nn import tubelet_masking
from filmstrip.nn.patches import patchify, take
from filmstrip.objectives.targets import normalise_tubelets
from filmstrip.protocols import Grid
from filmstrip.systems.pretraining.videomae import VideoMAEConfig

choose_tubelets = partial(tubelet_masking.choose_tubelets, use="videomae.masks")
SMALL = VideoMAEConfig(
    width=24,
    depth=1,
    num_heads=2,
    decoder_width=12,
    decoder_depth=1,
    decoder_num_heads=2,
    num_frames=4,
    size=32,
    patch_size=(2, 8, 8),
    mask_ratio=0.9,
)


@settings(max_examples=60, deadline=None)
@given(
    grid=st.builds(Grid, st.integers(2, 8), st.integers(1, 6), st.integers(2, 6)),
    masking=st.sampled_from(["tube", "random", "frame"]),
    ratio=st.floats(0.3, 0.95),
    seeds=st.lists(st.integers(0, 2**62), min_size=1, max_size=4),
)
def test_every_cube_is_seen_or_hidden_once_with_exact_counts(grid, masking, ratio, seeds):
    visible, hidden = choose_tubelets(torch.tensor(seeds), grid, masking, ratio)
    n = grid.t * grid.h * grid.w
    units = {"tube": grid.h * grid.w, "random": n, "frame": grid.t}[masking]
    assert hidden.shape == (len(seeds), int(ratio * units) * (n // units))
    for seen, covered in zip(visible.tolist(), hidden.tolist()):
        assert sorted(seen + covered) == list(range(n))
        assert seen == sorted(seen) and covered == sorted(covered)


def cover(masking, grid, seeds=(0, 1, 2), ratio=0.75):
    """True where hidden, ``B t h w``."""
    _, hidden = choose_tubelets(torch.tensor(seeds), grid, masking, ratio)
    flat = torch.zeros(len(seeds), grid.t * grid.h * grid.w, dtype=torch.bool)
    return flat.scatter_(1, hidden, True).view(len(seeds), *grid)


def test_tubes_go_through_all_frames_and_frames_are_whole():
    grid = Grid(4, 4, 4)
    tube, frame, random = (cover(masking, grid) for masking in ("tube", "frame", "random"))
    assert (tube == tube[:, :1]).all()
    assert (frame == frame[:, :, :1, :1]).all()
    assert not (random == random[:, :1]).all()
    assert tube[0].sum() == frame[0].sum() == random[0].sum() == 48


def test_masks_belong_to_the_clip_not_to_the_batch():
    grid = Grid(4, 4, 4)
    together = cover("tube", grid, seeds=(5, 6, 7))
    assert torch.equal(together[1:2], cover("tube", grid, seeds=(6,)))
    assert not torch.equal(together[0], together[1])


def test_every_place_is_hidden_as_often_as_every_other():
    share = cover("tube", Grid(1, 7, 7), seeds=range(4000), ratio=0.9).float().mean(0)
    assert (share - 44 / 49).abs().max() < 0.025


def test_published_counts():
    visible, hidden = choose_tubelets(torch.tensor([0]), Grid(8, 14, 14), "tube", 0.9)
    assert visible.shape[1] == 160 and hidden.shape[1] == 1408


def test_targets_are_normalised_by_cube_and_channel():
    cubes = torch.rand(2, 3, 20, 3) * torch.tensor([1.0, 2.0, 3.0]) + 5
    normal = normalise_tubelets(cubes)
    torch.testing.assert_close(normal.mean(2), torch.zeros(2, 3, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(normal.std(2), torch.ones(2, 3, 3), atol=1e-3, rtol=0)
    assert normalise_tubelets(torch.ones(1, 1, 20, 3)).abs().max() < 1e-3  # flat cubes stay finite


def test_loss_ignores_visible_pixels_as_targets():
    torch.manual_seed(0)
    objective = SMALL.build().eval()
    video = torch.rand(1, 4, 3, 32, 32)
    visible, hidden = choose_tubelets(torch.tensor([3]), objective.encoder.grid, "tube", 0.75)
    predicted = objective.predict_masked(video, visible, hidden)
    target = normalise_tubelets(take(patchify(video, (2, 8, 8)), hidden)).flatten(2)
    torch.testing.assert_close(objective.loss(video, visible, hidden), (predicted - target).square().mean())


@pytest.mark.parametrize("masking", ["tube", "random", "frame"])
def test_reconstruction_keeps_what_was_seen(masking):
    torch.manual_seed(0)
    objective = SMALL.build().eval()
    objective.masking, objective.ratio = masking, 0.5
    video = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8)
    seeds = torch.tensor([1, 2])
    masked, rebuilt = objective.reconstruct(video, seeds)
    assert masked.shape == rebuilt.shape == video.shape
    assert rebuilt.min() >= 0 and rebuilt.max() <= 1
    visible, hidden = choose_tubelets(seeds, objective.encoder.grid, masking, 0.5)
    true, shown, made = (patchify(v, (2, 8, 8)) for v in (video.float() / 255, masked, rebuilt))
    torch.testing.assert_close(take(shown, visible), take(true, visible))
    torch.testing.assert_close(take(made, visible), take(true, visible))
    assert (take(shown, hidden) == 0.5).all()
    assert not torch.allclose(take(made, hidden), take(true, hidden), atol=0.05)

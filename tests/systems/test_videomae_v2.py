"""VideoMAE V2's decoder: what it leaves out, what its loss counts, and that without it VideoMAE is what it was."""

import dataclasses

import numpy as np
import pytest
import torch

from filmstrip.nn.tubelet_masking import choose_decoded, running_cells
from filmstrip.protocols import Grid
from filmstrip.systems.pretraining.videomae import VideoMAEConfig

SMALL = VideoMAEConfig(
    width=24,
    depth=1,
    num_heads=2,
    decoder_width=12,
    decoder_depth=2,
    decoder_num_heads=2,
    num_frames=8,
    size=32,
    patch_size=(2, 8, 8),
    mask_ratio=0.75,
)
GRID = Grid(4, 4, 4)
DUAL = dataclasses.replace(SMALL, decoder_masking="running_cell", decoder_ratio=0.5)


def batch(seeds=(0, 1, 2)):
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (len(seeds), 8, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return {"video": video, "seed": torch.tensor(seeds)}


def covered(kept, grid):
    """True where a position is kept, ``B t h w``."""
    flat = torch.zeros(len(kept), grid.t * grid.h * grid.w, dtype=torch.bool)
    return flat.scatter_(1, kept, True).view(len(kept), *grid)


def queue(start, steps, ratio, h, w):
    """The published rule: a queue of four flags, turned by one before each step and tiled over the frame."""
    flags = np.array([True] * int(4 * ratio) + [False] * (4 - int(4 * ratio)))
    frames = []
    for step in range(1, steps + 1):
        cell = np.array([flags[(i + start + step) % 4] for i in range(4)]).reshape(2, 2)
        frames.append(np.tile(cell, (h // 2, w // 2)))
    return torch.from_numpy(np.stack(frames))


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_running_cells_are_the_published_ones(ratio):
    grid = Grid(6, 4, 6)
    kept = covered(running_cells(torch.arange(64), grid, ratio), grid)
    published = [~queue(start, grid.t, ratio, grid.h, grid.w) for start in range(4)]
    found = {next(i for i, mask in enumerate(published) if torch.equal(mask, clip)) for clip in kept}
    assert found == {0, 1, 2, 3}


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_every_frame_and_every_position_in_four_steps_keep_their_share(ratio):
    grid = Grid(8, 14, 14)
    kept = covered(running_cells(torch.arange(8), grid, ratio), grid).float()
    assert (kept.mean(dim=(2, 3)) == 1 - ratio).all()
    for begin in range(5):
        assert (kept[:, begin : begin + 4].mean(dim=1) == 1 - ratio).all()


@pytest.mark.parametrize("masking", ["running_cell", "frame", "random"])
def test_choices_belong_to_the_clip_and_are_ascending(masking):
    seeds = torch.tensor([5, 6, 7])
    kept = choose_decoded(seeds, GRID, masking, 0.5)
    assert kept.shape == (3, 32) and torch.equal(kept, kept.sort(dim=1).values)
    assert torch.equal(kept[1:2], choose_decoded(seeds[1:2], GRID, masking, 0.5))


def test_the_decoders_choice_is_not_the_encoders():
    objective = dataclasses.replace(SMALL, masking="random", mask_ratio=0.5).build()
    seeds = torch.arange(4)
    assert not torch.equal(objective.masks(seeds)[0], choose_decoded(seeds, GRID, "random", 0.5))


def test_what_the_encoder_sees_counts_for_nothing():
    torch.manual_seed(0)
    objective, given = DUAL.build(), batch()
    visible, masked = objective.masks(given["seed"])
    kept, counted = objective.wanted(given["seed"], masked)
    loss = objective.loss(given["video"], visible, kept, counted)
    seen = torch.zeros(3, 64, dtype=torch.bool).scatter_(1, visible, True).gather(1, kept)
    assert torch.equal(seen, ~counted) and seen.any() and counted.any()
    said = objective.predict_masked(given["video"], visible, kept)
    truth = objective.predictions[0].target(given["video"], kept)
    torch.testing.assert_close(loss, (said - truth).square()[counted].mean())
    assert objective(given).total.item() == loss.item()


def test_outputs_at_visible_positions_get_no_gradient():
    torch.manual_seed(0)
    objective, given = DUAL.build(), batch()
    said = []

    def keep(module, given, out):
        out.retain_grad()
        said.append(out)

    objective.decoder.head.register_forward_hook(keep)
    objective(given).total.backward()
    _, counted = objective.wanted(given["seed"], objective.masks(given["seed"])[1])
    assert said[0].grad[counted].abs().sum(-1).min() > 0
    assert not said[0].grad[~counted].any()


def test_loss_on_all_that_is_kept_counts_it():
    torch.manual_seed(0)
    objective, given = dataclasses.replace(DUAL, loss_on="kept").build(), batch()
    visible, masked = objective.masks(given["seed"])
    kept, counted = objective.wanted(given["seed"], masked)
    assert counted is None
    said = objective.predict_masked(given["video"], visible, kept)
    truth = objective.predictions[0].target(given["video"], kept)
    torch.testing.assert_close(objective(given).total, (said - truth).square().mean())


def test_only_kept_positions_are_computed():
    objective, lengths = DUAL.build(), []
    objective.decoder.blocks[0].register_forward_hook(lambda module, x, out: lengths.append(out.shape[1]))
    objective(batch())
    assert lengths == [16 + 32]  # a quarter of 64 visible, half of 64 kept


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"decoder_ratio": 0.6}, "leave out 0.25, 0.5 or 0.75 of all positions, not 0.6"),
        ({"size": 24}, "do not tile frames of 3 x 3"),
    ],
)
def test_cells_that_do_not_fit_are_refused_when_it_is_built(changes, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(DUAL, **changes).build()

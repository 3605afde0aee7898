"""What VIOLET's visual half masks and names, and how its tokenizer is kept."""

import dataclasses
import shutil

import pytest
import torch

from filmstrip import systems
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.objectives.targets import Codes, resized
from filmstrip.objectives.visual_tokens import choose_attended, choose_blocks
from filmstrip.protocols import Grid
from filmstrip.runs import experiment
from filmstrip.runs.frozen import read_references
from filmstrip.train.lengths import Steps

CONFIG = systems.find("pretraining.violet:tiny").objective


def built(**changes):
    torch.manual_seed(0)
    return dataclasses.replace(CONFIG, **changes).build().eval()


def batch(size=3):
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (size, 4, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return {"video": video, "seed": torch.arange(size)}


def test_blocks_are_boxes_below_two_thirds_of_the_frame():
    grid = Grid(4, 7, 6)
    chosen = choose_blocks(torch.arange(500), grid)
    assert chosen.shape == (500, *grid) and chosen.flatten(1).any(dim=1).all()
    assert torch.equal(chosen[7:8], choose_blocks(torch.tensor([7]), grid))
    single = choose_blocks(torch.arange(2000), Grid(1, 7, 6))[:, 0]
    rows, columns = single.any(dim=2), single.any(dim=1)
    # One frame has one block: all of its rows and columns, of 1 to 3 patches each, at every place.
    assert torch.equal(single, rows[:, :, None] & columns[:, None])
    for side, most in ((rows, 3), (columns, 3)):
        assert side.sum(dim=1).unique().tolist() == list(range(1, most + 1)) and side.any(dim=0).all()


def test_attended_positions_are_masked_more_often():
    weights = torch.tensor([0.4, 0.3, 0.1, 0.1, 0.1]).expand(4000, -1)
    chosen = choose_attended(torch.arange(4000), weights, 2)
    assert (chosen.sum(dim=1) == 2).all()
    share = chosen.float().mean(dim=0)
    assert share[0] > share[1] > share[2] + 0.2 and (share[2:] - share[2:].mean()).abs().max() < 0.03


@torch.no_grad()
def test_masked_pixels_are_not_seen():
    objective, video = built(), batch()["video"]
    masked = choose_blocks(torch.arange(3), objective.encoder.grid)
    other = torch.where(masked[:, :, None].repeat_interleave(16, 3).repeat_interleave(16, 4), 255 - video, video)
    assert torch.equal(objective.predict(video, masked), objective.predict(other, masked))
    assert not torch.equal(objective.target(video), objective.target(other))


@torch.no_grad()
def test_only_masked_patches_count_and_a_right_answer_costs_nothing():
    objective = built(masking="blocks")
    codes = objective.target(batch()["video"])
    masked = objective.masks(batch()["video"], batch()["seed"]).flatten(1)
    sure = torch.nn.functional.one_hot(codes, objective.target.codebook_size).float() * 100
    wrong = torch.where(masked[..., None], sure, sure.roll(1, dims=-1))
    objective.predict = lambda video, masked: wrong
    loss = objective(batch())
    assert loss.total.item() == pytest.approx(0, abs=1e-6) and loss.metrics["top1"] == 1
    assert loss.metrics["masked"].item() == pytest.approx(masked.float().mean().item())


@torch.no_grad()
def test_codes_are_those_of_small_frames():
    objective, video = built(), batch()["video"]
    target = objective.target
    small = resized(video, target.size)
    assert small.shape[-2:] == (4 * target.tokenizer.patch_size[1], 4 * target.tokenizer.patch_size[2])
    ids = target.tokenizer.encode(small).ids
    assert torch.equal(target(video), ids)
    positions = torch.tensor([[3, 1], [0, 63], [5, 5]])
    assert torch.equal(target(video, positions), ids.gather(1, positions))
    assert not any(p.requires_grad for p in target.parameters()) and not target.tokenizer.training


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="make no grid"):
        built(size=40)
    with pytest.raises(UserError, match="raise max_positions or max_frames"):
        built(max_frames=2)
    with pytest.raises(UserError, match="square frames"):
        Codes(CONFIG.build_tokenizer(), Grid(4, 4, 2))


def test_the_tokenizer_is_kept_by_reference(tmp_path, monkeypatch):
    monkeypatch.setenv("FILMSTRIP_CACHE", str(tmp_path / "cache"))

    def short(run, **changes):
        data = dataclasses.replace(
            run.data, synthetic=Motions(train_per_class=1, test_per_class=1), num_workers=0, batch_size=2
        )
        train = dataclasses.replace(run.train, length=Steps(1))
        return dataclasses.replace(
            run, data=data, train=train, evals=(), objective=dataclasses.replace(run.objective, **changes)
        )

    tokenizer = experiment.train(short(systems.find("tokenizers.dvae:tiny")), tmp_path / "dvae").objective
    run = short(
        systems.find("pretraining.violet:tiny"), untrained_tokenizer=False, tokenizer_run=str(tmp_path / "dvae")
    )
    objective = experiment.train(run, tmp_path / "violet").objective
    own = objective.target.tokenizer.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in tokenizer.state_dict().items() if name in own)
    assert set(read_references(tmp_path / "violet")) == {"objective.tokenizer_run"}
    assert not [name for name in objective.own_state() if name.startswith("target.tokenizer.")]
    shutil.rmtree(tmp_path / "violet")
    with pytest.raises(UserError, match="the tokenizer is untrained"):
        experiment.train(short(run, tokenizer_run=None), tmp_path / "violet")

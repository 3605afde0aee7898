"""Latent FDM: the frames of a training step, schedules by brute force, and videos of any length."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from drawn import draw_batch, info_for

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.data.config import Clip
from filmstrip.data.kinds.clips import ClipInfo
from filmstrip.errors import UserError
from filmstrip.nn.sampling import Sampling
from filmstrip.objectives.diffusion import ConditionDropout
from filmstrip.objectives.diffusion_sampling import DiffusionSampling
from filmstrip.protocols import Completes, Condition, StreamingGenerator
from filmstrip.systems.generation.latent_fdm import FDMSampling, model
from filmstrip.systems.generation.latent_fdm.model import choose_frames
from filmstrip.systems.generation.latent_fdm.schedules import stages

SCHEDULES = ("autoregressive", "long_range", "hierarchy_2")
FEW = FDMSampling(steps=2)
INFO = dict(classes=("a",), num_train=1, directional=False)
ACTION = torch.tensor([[0, 1, 2, 0, 1, 2, 0, 2, 1, 0, 1, 2]] * 2)


def built(**changes):
    run = systems.find("generation.latent_fdm:tiny")
    run = run.bound(info_for(run.data.reads))
    torch.manual_seed(0)
    objective = replace(run.objective, **changes).build().eval()
    for parameter in objective.unet.parameters():  # outputs start at zero
        torch.nn.init.normal_(parameter, std=0.1)
    objective.latent_scale.fill_(1)
    return objective, draw_batch(run.data, size=2, seed=0)


@pytest.fixture(scope="module")
def fdm():
    return built()


# Schedules


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_frame_is_made_once_from_known_ones(schedule):
    some = [(), (0,), (0, 1), tuple(range(5)), (3,), (0, 9), (2, 4, 6, 8), tuple(range(10)), (11, 12)]
    checked = 0
    for given, frames, most, at_once in product(some, (1, 2, 7, 13, 40), (2, 3, 4, 9, 20), (1, 2, 3, 8, 19, None)):
        if any(at >= frames for at in given) or most < 2 + (schedule == "hierarchy_2") or (at_once or 1) >= most:
            continue
        known = set(given)
        for number, stage in enumerate(stages(schedule, frames, given, max_frames=most, at_once=at_once)):
            assert stage.latent and len(stage.observed) + len(stage.latent) <= most
            assert not known & set(stage.latent) and set(stage.observed) <= known
            for part in stage:
                assert list(part) == sorted(set(part))
            assert stage.observed or (number == 0 and not given)
            if known:
                assert len(stage.latent) <= (most // 2 if at_once is None else at_once) or frames <= most
            known |= set(stage.latent)
        assert known == set(range(frames))
        checked += 1
    assert checked > 500


def test_schedules_see_what_they_are_named_for():
    def seen(schedule, given=range(10)):
        return stages(schedule, 100, given, max_frames=8, at_once=4)

    assert seen("autoregressive")[5] == ((26, 27, 28, 29), (30, 31, 32, 33))
    assert seen("long_range")[5] == ((8, 9, 28, 29), (30, 31, 32, 33))
    first, second, *_ = seen("hierarchy_2")
    assert first == ((0, 3, 6, 9), (10, 39, 69, 99))
    assert second == ((9, 10, 39, 69), (11, 12, 13, 14)) and len(seen("hierarchy_2")) == 23
    # Between frames that are given, the nearest ones on both sides are seen.
    ((observed, latent),) = stages("autoregressive", 9, (0, 1, 2, 6, 7, 8), max_frames=7, at_once=3)
    assert observed == (1, 2, 6, 7) and latent == (3, 4, 5)
    assert stages("hierarchy_2", 40, (), max_frames=5)[0] == ((), (0, 9, 19, 29, 39))
    assert stages("autoregressive", 3, (0, 1, 2), max_frames=5) == []
    # A video that fits as a whole is made at once, unless it is said otherwise.
    for schedule in SCHEDULES:
        assert stages(schedule, 8, (0, 5), max_frames=8) == [((0, 5), (1, 2, 3, 4, 6, 7))]
        assert len(stages(schedule, 8, (0, 5), max_frames=8, at_once=4)) == 2


def test_schedules_that_leave_nothing_to_see_are_refused():
    for schedule, changes, message in (
        ("autoregressive", dict(max_frames=4, at_once=4), "sees 4 frames cannot make 4"),
        ("long_range", dict(max_frames=1), "needs 2 frames or more"),
        ("hierarchy_2", dict(max_frames=2, at_once=1), "needs 3 frames or more"),
        ("autoregressive", dict(max_frames=4, given=(12,)), "frame 12 is given of a video of 12 frames"),
    ):
        with pytest.raises(UserError, match=message):
            stages(schedule, 12, **({"given": (0,)} | changes))


# Training


@pytest.mark.parametrize(("frames", "most"), [(12, 6), (60, 20), (20, 20), (5, 1)])
def test_chosen_frames_are_groups_of_the_clip(frames, most):
    chosen = choose_frames(torch.arange(500), frames, most)
    assert chosen.frames.shape == (500, most) and (chosen.frames >= 0).all() and (chosen.frames < frames).all()
    assert all(len(set(row)) == most for row in chosen.frames.tolist())
    assert not (chosen.observed & chosen.padding).any()
    assert (~chosen.observed & ~chosen.padding).any(dim=1).all()  # something is always learnt
    after = chosen.frames[:, 1:] > chosen.frames[:, :-1]
    assert (after | (chosen.padding[:, 1:] & ~chosen.padding[:, :-1])).all()
    assert (chosen.padding[:, 1:] >= chosen.padding[:, :-1]).all()
    alone = choose_frames(torch.tensor([7]), frames, most)
    assert all(torch.equal(one[0], every[7]) for one, every in zip(alone, chosen))


def test_frames_are_drawn_as_the_published_code_draws_them():
    """Of 20,000 clips of 12 frames, of which it chooses 6, that code observed 12.8%, and nothing of 68.2%."""
    chosen = choose_frames(torch.arange(20_000), 12, 6)
    latent = ~chosen.observed & ~chosen.padding
    assert chosen.observed.float().mean().item() == pytest.approx(0.128, abs=0.005)
    assert latent.float().mean().item() == pytest.approx(0.710, abs=0.005)
    assert (~chosen.observed.any(dim=1)).float().mean().item() == pytest.approx(0.682, abs=0.012)
    for frame, share in ((0, 0.298), (6, 0.442)):
        there = (latent & (chosen.frames == frame)).any(dim=1).float().mean().item()
        assert there == pytest.approx(share, abs=0.012)


@torch.no_grad()
def test_what_is_observed_is_seen_clean_and_not_learnt(monkeypatch):
    objective, batch = built()
    chosen = choose_frames(batch["seed"], 12, 6)
    rows = torch.arange(2)[:, None]
    wanted, seen = objective.latents(batch["video"])[rows, chosen.frames], {}
    observed = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0]]).bool()
    padding = torch.tensor([[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]]).bool()
    told = chosen._replace(observed=observed, padding=padding)
    monkeypatch.setattr(model, "choose_frames", lambda *_: told)

    def spy(x, time, **told):
        seen.update(x=x, **told)
        return torch.zeros_like(x)

    monkeypatch.setattr(objective.unet, "forward", spy)
    loss = objective(batch)
    torch.testing.assert_close(seen["x"][observed], wanted[observed])
    assert not torch.allclose(seen["x"][~observed], wanted[~observed])
    assert torch.equal(seen["frames"], chosen.frames) and torch.equal(seen["observed"], observed)
    assert (
        seen["apart"][1, 0, 4]
        and seen["apart"][1, 5, 3]
        and not seen["apart"][1, 4, 5]
        and not seen["apart"][0].any()
    )
    wrong = observed[:, :, None, None, None] * 1e3
    monkeypatch.setattr(objective.unet, "forward", lambda x, time, **told: torch.zeros_like(x) + wrong)
    assert objective(batch).total.item() == pytest.approx(loss.total.item(), rel=1e-5)


@torch.no_grad()
def test_padding_is_apart(fdm):
    objective, _ = fdm
    x = torch.randn(1, 4, objective.latent_dim, 8, 8, generator=torch.Generator().manual_seed(0))
    padding = torch.tensor([[0, 0, 1, 1]]).bool()
    told = dict(
        frames=torch.tensor([[0, 5, 2, 7]]),
        observed=torch.zeros(1, 4, dtype=torch.bool),
        reach=11,
        apart=padding[:, :, None] != padding[:, None],
    )
    # Norms are over all frames, padding included, as published: the layer alone is looked at.
    layer, taken = objective.unet.middle[0].frames, {}
    handle = layer.qkv.register_forward_hook(lambda module, given, out: taken.update(qkv=out))
    scores = []
    layer.out.register_forward_hook(lambda module, given, out: scores.append(given[0]))
    objective.unet(x, torch.tensor([400]), **told)
    handle.remove()
    changed = taken["qkv"].clone()
    changed[:, 2:] += 1
    layer.qkv.register_forward_hook(lambda module, given, out: changed)
    objective.unet(x, torch.tensor([400]), **told)
    layer.qkv._forward_hooks.clear()
    layer.out._forward_hooks.clear()
    torch.testing.assert_close(scores[0][:, :2], scores[1][:, :2])
    assert not torch.allclose(scores[0][:, 2:], scores[1][:, 2:])


# Actions


def acting(**changes):
    return built(conditions=("action",), num_actions=3, **changes)[0]


@torch.no_grad()
def test_a_frame_is_told_the_mean_of_the_actions_since_the_one_before():
    objective = acting()
    given = objective.conditions(2, 12, label=None, action=ACTION)
    frames = torch.tensor([[2, 3, 7, 0, 5], [0, 1, 2, 3, 11]])
    padding = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]).bool()
    told = objective._led_to(given, frames, padding)
    none = objective.conditions.no_action
    embedded = objective.conditions.action(ACTION)
    torch.testing.assert_close(told[0, 0], none)
    torch.testing.assert_close(told[0, 1], embedded[0, 3])
    torch.testing.assert_close(told[0, 2], embedded[0, 4:8].mean(dim=0))
    torch.testing.assert_close(told[0, 3], none)
    torch.testing.assert_close(told[0, 4], embedded[0, 1:6].mean(dim=0))
    torch.testing.assert_close(told[1, 4], embedded[1, 4:12].mean(dim=0))


@torch.no_grad()
def test_samples_follow_actions():
    objective = acting()
    asked = Condition(batch_size=2, num_frames=12, video=torch.rand(2, 3, 3, 32, 32), action=ACTION)
    made = objective.sample(asked, seed=0, sampling=FEW)
    later = ACTION.clone()
    later[:, -1] = 0
    other = objective.sample(replace(asked, action=later), seed=0, sampling=FEW)
    # The last stage makes frames 9 to 11, and only there the last action is told.
    torch.testing.assert_close(made[:, :9], other[:, :9])
    assert not torch.allclose(made[:, 11], other[:, 11])
    with pytest.raises(UserError, match="this model needs actions"):
        objective.sample(replace(asked, action=None), seed=0, sampling=FEW)
    dropping = acting(dropout=ConditionDropout(table=(("action", 0.5),)))
    assert dropping.sample(replace(asked, action=None), seed=0, sampling=FEW).shape == (2, 12, 3, 32, 32)
    config = objective.config
    assert config.bind(ClipInfo(**INFO, num_actions=5)).num_actions == 5
    with pytest.raises(UserError, match="need data with actions"):
        config.bind(ClipInfo(**INFO))


# Sampling


@torch.no_grad()
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_samples_go_on_to_any_length_and_stream(fdm, schedule):
    objective, batch = fdm
    assert isinstance(objective, StreamingGenerator) and isinstance(objective, Completes)
    video = batch["video"].float() / 255
    sampling, asked = replace(FEW, schedule=schedule), Condition(batch_size=2, num_frames=17, video=video[:, :4])
    made = objective.sample(asked, seed=3, sampling=sampling)
    assert made.shape == (2, 17, 3, 32, 32) and 0 <= made.min() <= made.max() <= 1
    assert torch.equal(made[:, :4], video[:, :4])
    pieces = list(objective.stream(asked, seed=3, sampling=sampling))
    assert torch.equal(torch.cat(pieces, dim=1), made[:, 4:])
    assert len(pieces) > 1
    alone = objective.sample(replace(asked, batch_size=1, video=video[1:, :4]), seed=4, sampling=sampling)
    torch.testing.assert_close(alone[0], made[1], rtol=1e-3, atol=1e-3)
    free = objective.sample(Condition(batch_size=2, num_frames=8), seed=3, sampling=sampling)
    assert free.shape == (2, 8, 3, 32, 32) and not torch.allclose(free[:, 4:], made[:, 4:8])
    assert torch.equal(objective.sample(replace(asked, num_frames=4), seed=3, sampling=sampling), video[:, :4])


@torch.no_grad()
def test_frames_anywhere_are_given(fdm):
    objective, batch = fdm
    video = batch["video"].float() / 255
    known = torch.zeros(2, 12, 1, 1, dtype=torch.bool)
    known[:, [0, 5, 11]] = True
    asked = Condition(batch_size=2, num_frames=12, video=video, known=known)
    made = objective.sample(asked, seed=3, sampling=FEW)
    assert torch.equal(made[:, [0, 5, 11]], video[:, [0, 5, 11]])
    unseen = replace(asked, video=torch.where(known[:, :, None], video, 0.2))
    assert torch.equal(objective.sample(unseen, seed=3, sampling=FEW), made)
    changed = video.clone()
    changed[:, 11] = 0
    assert not torch.allclose(
        objective.sample(replace(asked, video=changed), seed=3, sampling=FEW)[:, 10], made[:, 10]
    )
    places = objective.given_places(known.expand(2, 12, 32, 32))
    assert places.shape == (2, 12, 1, 8, 8) and places[:, 5].all() and not places[:, 6].any()
    begun = known.clone()
    begun[:] = False
    begun[:, :4] = True
    first = objective.sample(Condition(batch_size=2, num_frames=12, video=video[:, :4]), seed=3, sampling=FEW)
    assert torch.equal(objective.sample(replace(asked, known=begun), seed=3, sampling=FEW), first)


@torch.no_grad()
def test_stages_draw_fresh_noise_of_their_own(fdm, monkeypatch):
    objective, batch = fdm
    drawn, asked = [], Condition(batch_size=2, num_frames=12, video=batch["video"][:, :3])
    original = model.denoise

    def spy(*told, seeds, **more):
        drawn.append(seeds)
        return original(*told, seeds=seeds, **more)

    monkeypatch.setattr(model, "denoise", spy)
    objective.sample(asked, seed=1, sampling=replace(FEW, eta=1.0))
    assert len({tuple(seeds.tolist()) for seeds in drawn}) == 3


def test_what_cannot_be_made_is_refused(fdm):
    objective, batch = fdm
    asked = Condition(batch_size=2, num_frames=12)
    parts = torch.ones(2, 12, 32, 32, dtype=torch.bool)
    parts[:, 4, :8] = False
    apart = torch.zeros(2, 12, 1, 1, dtype=torch.bool)
    apart[0, 3] = True
    for changes, sampling, message in (
        ({"label": torch.tensor([0, 1])}, FEW, "knows no labels"),
        ({"action": ACTION}, FEW, "knows no actions"),
        ({"text": ({},)}, FEW, "without texts"),
        ({}, Sampling(), "not by Sampling"),
        ({}, replace(FEW, at_once=6), "sees 6 frames cannot make 6"),
        ({"video": batch["video"][:, :1, :, :16, :16]}, FEW, r"32 x 32 pixels, and was given \(16, 16\)"),
        ({"video": batch["video"], "num_frames": 7}, FEW, "12 frames were given, and 7"),
        ({"video": batch["video"], "known": parts}, FEW, "whole frames"),
        ({"video": batch["video"], "known": apart}, FEW, "all samples the same ones"),
    ):
        with pytest.raises(UserError, match=message):
            objective.sample(replace(asked, **changes), seed=0, sampling=sampling)
    with pytest.raises(UserError, match="use sample"):
        next(objective.stream(replace(asked, video=batch["video"], known=parts), seed=0))
    plain = objective.sample(replace(asked, num_frames=6), seed=0, sampling=DiffusionSampling(steps=2))
    assert torch.equal(plain, objective.sample(replace(asked, num_frames=6), seed=0, sampling=FEW))
    own = systems.find("generation.latent_fdm:tiny").objective
    for changes, message in (
        ({"max_frames": 13}, "13 frames are to be chosen of clips of 12"),
        ({"tokenizer": systems.find("tokenizers.vqvae3d:tiny").objective}, "VQVAE3DConfig makes codes"),
        ({"size": 36}, "latents of 9 x 9 cannot be halved 1 times"),
        ({"unet": replace(own.unet, depths=(1,))}, "depths of 1 of them"),
        ({"unet": replace(own.unet, widths=(32, 50))}, "multiples of 8"),
    ):
        with pytest.raises(UserError, match=message):
            replace(own, **changes).build()
    with pytest.raises(UserError, match="clips have 5 frames, of which 6"):
        objective({"video": batch["video"][:, :5], "seed": batch["seed"]})


def test_shorter_clips_are_seen_whole():
    own = systems.find("generation.latent_fdm:tiny").objective
    for frames, seen in ((4, 4), (30, 6)):
        changed = own.for_clip(Clip(num_frames=frames, size=16))
        assert (changed.num_frames, changed.max_frames, changed.size) == (frames, seen, 16)


def test_levels_have_their_depths():
    own = systems.find("generation.latent_fdm:tiny").objective
    unet = replace(own, unet=replace(own.unet, depths=(1, 2))).build().unet
    assert [len(level.blocks) for level in unet.down] == [1, 2] and [len(level.blocks) for level in unet.up] == [3, 2]


# Commands


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fdm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FILMSTRIP_CACHE", str(folder / "cache"))
        words = ("--train.steps", "2", "--data.num-workers", "0", "--data.synthetic.train-per-class", "2")
        assert main(["train", "generation.latent_fdm:tiny", "--out", str(folder / "run"), *words]) == 0
    return folder / "run"


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (("--context-frames", "3", "--frames", "20"), "1 x 20 frames"),
        (("--given", "0", "11", "--sampling.schedule", "hierarchy_2"), "1 x 12 frames"),
    ],
)
def test_the_command_makes_films(run_folder, tmp_path, capsys, words, made):
    film = sorted(run_folder.parent.glob("cache/**/test/*/*.mp4"))[0]
    few = ("--num-samples", "1", "--sampling.steps", "2", "--out", str(tmp_path / "made.mp4"))
    assert main(["generate", str(run_folder), "--condition", str(film), *words, *few]) == 0
    assert made in capsys.readouterr().out

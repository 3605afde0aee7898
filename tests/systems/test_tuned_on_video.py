"""Editors that are first trained on the video: Tune-A-Video and Dreamix."""

from dataclasses import replace

import pytest
import torch
from editors import FEW, built, request

from filmstrip.errors import UserError
from filmstrip.inference import inference
from filmstrip.models.video_unet import Place
from filmstrip.objectives.film_tuning import Tuning
from filmstrip.systems.editing.dreamix import coarser
from filmstrip.systems.editing.tune_a_video import sparse_causal

ONE = Tuning(steps=1, lr=1e-2)


@pytest.fixture(scope="module", params=["editing.tune_a_video:tiny", "editing.dreamix:tiny"])
def editor(request):
    return built(request.param)


def state(objective):
    return {name: tensor.clone() for name, tensor in objective.state_dict().items()}


def trained(objective, batch, tuning=ONE):
    """What training on the first video changes in the U-Net, by name."""
    before = dict(objective.unet.state_dict())
    before = {name: tensor.clone() for name, tensor in before.items()}
    with torch.no_grad():
        latents = objective.latents(batch["video"][:1])
        known = objective.told(objective.read(batch["text"][:1], batch["text_length"][:1]))
    with objective.tuned(latents, known, tuning):
        return {name: tensor - before[name] for name, tensor in objective.unet.state_dict().items()}


def test_frames_attend_to_the_first_and_the_one_before():
    q, k, v = torch.randn(3, 8, 2, 5, 4, generator=torch.Generator().manual_seed(0))  # two clips of four frames
    found = sparse_causal(Place("self", 0, 4), q, k, v)
    for row in range(8):
        clip, frame = divmod(row, 4)
        seen = [4 * clip, 4 * clip + max(frame - 1, 0)]
        keys, values = (torch.cat([x[i] for i in seen], dim=1) for x in (k, v))
        maps = (q[row] @ keys.mT / 2).softmax(dim=-1)
        torch.testing.assert_close(found[row], maps @ values)
    assert (
        sparse_causal(Place("cross", 0, 4), q, k, v) is None and sparse_causal(Place("time", 0, 4), q, k, v) is None
    )


def test_a_video_trains_queries_and_layers_over_time_alone():
    objective, batch = built("editing.tune_a_video:tiny")
    for name, change in trained(objective, batch).items():
        over_time = name.startswith("first.") or ".temporal_attention." in name
        if name.endswith("attention1.qkv.weight") and not over_time:
            queries, rest = change.tensor_split([len(change) // 3])
            assert queries.any() and not rest.any(), name
        else:
            wanted = name.endswith("attention2.q.weight") or (over_time and ".norm" not in name)
            assert bool(change.any()) == wanted, name


def test_single_frames_leave_layers_over_time_alone():
    objective, batch = built("editing.dreamix:tiny", clip_share=0.0)
    changed = {name for name, change in trained(objective, batch).items() if change.any()}
    assert changed and not [name for name in changed if objective.unet.is_temporal(name)]
    clip, _ = built("editing.dreamix:tiny", clip_share=1.0)
    assert [n for n, change in trained(clip, batch).items() if change.any() and clip.unet.is_temporal(n)]


def test_a_coarse_video_keeps_the_means_of_squares():
    video = torch.rand(1, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = coarser(video, 8)
    torch.testing.assert_close(found, video.mean(dim=(3, 4), keepdim=True).expand_as(video))
    assert torch.equal(coarser(video, 1), video)
    with pytest.raises(UserError, match="not tiled by squares of 5"):
        built("editing.dreamix:tiny", squares=5)


def test_edits_leave_the_network_as_it_was_and_depend_on_their_own_video(editor):
    objective, batch = editor
    before, asked = state(objective), request(batch, guidance={"text": 2.0}, tuning=ONE)
    with inference(objective):
        both = objective.edit(asked)
        alone = objective.edit(next(asked.rows()))
    assert both.shape == batch["video"].shape and both.min() >= 0 and both.max() <= 1
    torch.testing.assert_close(alone[0], both[0], rtol=1e-3, atol=1e-3)
    assert all(torch.equal(before[name], tensor) for name, tensor in objective.state_dict().items())
    assert all(p.grad is None for p in objective.parameters())


def test_candidates_share_what_was_learnt_of_a_video(editor, monkeypatch):
    objective, batch = editor
    one = next(request(batch, guidance={"text": 2.0}, tuning=ONE).rows())
    calls, tune = [], type(objective).tune
    monkeypatch.setattr(type(objective), "tune", lambda *given: (calls.append(1), tune(*given)))
    objective._film = None
    first, again = objective.edit(one), objective.edit(replace(one, seeds=one.seeds + 1))
    assert len(calls) == 1 and first.shape == again.shape
    assert torch.equal(objective.edit(one), first) and len(calls) == 1
    other = objective.edit(replace(one, tuning=Tuning(steps=2, lr=1e-2)))
    assert len(calls) == 3 and not torch.equal(other, first)


@torch.no_grad()
def test_a_video_that_is_learnt_comes_back_from_the_noise_that_it_is_inverted_to():
    objective, batch = built("editing.tune_a_video:tiny")
    asked = next(request(batch, guidance={"text": 0.0}, tuning=Tuning(steps=0)).rows())
    exact = replace(asked, sampling=replace(FEW, refinements=8))
    video = objective.pixels(objective.latents(asked.video))
    other = objective.edit(replace(asked, guidance={"text": 5.0}))
    assert (objective.edit(exact) - video).abs().mean() < 0.1 * (other - video).abs().mean()

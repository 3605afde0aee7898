"""TokenFlow: what flows from key frames to the others."""

from dataclasses import replace

import pytest
import torch
from editors import FEW, built, request

from filmstrip.models.video_unet import Place
from filmstrip.nn.attention import attend
from filmstrip.objectives.attention_editing import Steps
from filmstrip.systems.editing.tokenflow import Flow, key_frames, spread

PLACE = Place("self", 0, 6)


@pytest.fixture
def heads():
    """Queries, keys and values of two sources of six frames, and their edits."""
    return torch.randn(3, 24, 2, 5, 4, generator=torch.Generator().manual_seed(0))


def flow(steps=None, **options):
    return Flow(
        steps or Steps(FEW), torch.tensor([5, 6]), stretch=3, **({"kept_share": 0.0, "first_kept": 0} | options)
    )


def test_each_stretch_has_one_key_frame_drawn_anew_in_each_step():
    drawn = torch.stack([key_frames(torch.arange(200), 8, 3, step) for step in range(2)])
    for place, (first, last) in enumerate([(0, 2), (3, 5), (6, 7)]):
        assert set(drawn[0, :, place].tolist()) == set(range(first, last + 1))
    assert not torch.equal(drawn[0], drawn[1])


def literal(source, shown, keys):
    """Every position of every frame by itself."""
    found = torch.empty(*source.shape[:2], shown.shape[2])
    for frame in range(len(source)):
        before = max([i for i, key in enumerate(keys) if key < frame], default=None)
        after = min([i for i, key in enumerate(keys) if key >= frame], default=None)
        for position in range(source.shape[1]):
            of = {}
            for which in {before, after} - {None}:
                likeness = torch.cosine_similarity(source[frame, position], source[keys[which]], dim=-1)
                of[which] = shown[which, likeness.argmax()]
            if None in (before, after):
                found[frame, position] = next(iter(of.values()))
            else:
                share = (frame - keys[before]) / (keys[after] - keys[before])
                found[frame, position] = (1 - share) * of[before] + share * of[after]
    return found


def test_features_flow_along_the_nearest_of_the_source():
    generator = torch.Generator().manual_seed(1)
    source, shown = torch.randn(6, 5, 8, generator=generator), torch.randn(2, 5, 7, generator=generator)
    keys = torch.tensor([1, 4])
    found = spread(source, shown, keys)
    torch.testing.assert_close(found, literal(source, shown, keys.tolist()))
    assert torch.equal(found[keys], shown)  # a key frame is itself
    moved = torch.stack([source[0].roll(t, dims=0) for t in range(6)])
    torch.testing.assert_close(spread(moved, shown[:1], torch.tensor([0]))[3], shown[0].roll(3, dims=0))


def test_key_frames_of_an_edit_attend_to_all_of_them_and_sources_to_themselves(heads):
    q, k, v = heads
    found = flow()(PLACE, q, k, v)
    torch.testing.assert_close(found[:12], attend(q[:12], k[:12], v[:12]))
    for clip, keys in enumerate(key_frames(torch.tensor([5, 6]), 6, 3, 0)):
        rows = 12 + 6 * clip + keys
        every = [torch.cat(list(x[rows]), dim=1)[None].expand(2, -1, -1, -1) for x in (k, v)]
        torch.testing.assert_close(found[rows], attend(q[rows], *every))
    assert flow()(PLACE._replace(kind="time"), q, k, v) is None


def test_key_frames_attend_as_the_source_for_some_steps_and_layers(heads):
    q, k, v = heads
    steps = Steps(FEW)
    control = flow(steps, kept_share=0.5, first_kept=1)
    kept = torch.cat([q[:12], q[:12]]), torch.cat([k[:12], k[:12]])
    torch.testing.assert_close(control(PLACE._replace(layer=1), q, k, v), flow()(PLACE, *kept, v))
    torch.testing.assert_close(control(PLACE, q, k, v), flow()(PLACE, q, k, v))
    steps.done = 2
    torch.testing.assert_close(control(PLACE._replace(layer=1), q, k, v), flow(steps)(PLACE, q, k, v))


@torch.no_grad()
def test_edits_follow_their_source_and_not_their_batch():
    objective, batch = built("editing.tokenflow:tiny")
    for name, parameter in objective.unet.named_parameters():
        if name.endswith("qkv.weight"):
            parameter.mul_(20)  # attention of random weights would be even
    asked = request(batch, guidance={"text": 2.0})
    both = objective.edit(asked)
    assert both.shape == batch["video"].shape and both.min() >= 0 and both.max() <= 1
    second = list(asked.rows())[1]
    torch.testing.assert_close(objective.edit(second)[0], both[1], rtol=1e-3, atol=1e-3)
    objective.config = replace(objective.config, stretch=8)
    assert not torch.allclose(objective.edit(asked), both, atol=1e-3)

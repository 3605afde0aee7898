"""MasaCtrl: where an edit reads from its source."""

from dataclasses import replace

import pytest
import torch
from editors import FEW, built, request

from filmstrip.models.video_unet import Place
from filmstrip.objectives.attention_editing import Steps
from filmstrip.systems.editing.masactrl import MutualSelfAttention


@pytest.fixture(scope="module")
def masactrl():
    return built("editing.masactrl:tiny")


def test_the_edit_reads_the_source_from_a_step_and_a_layer_on_within_frames_alone():
    q, k, v = torch.randn(3, 4, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    steps = Steps(FEW)
    control = MutualSelfAttention(steps, first_step=1, first_layer=2)
    place = Place("self", 2, 2)
    assert control(place, q, k, v) is None
    steps.done = 1
    expected = torch.nn.functional.scaled_dot_product_attention(q, k[:2].repeat(2, 1, 1, 1), v[:2].repeat(2, 1, 1, 1))
    torch.testing.assert_close(control(place, q, k, v), expected)
    others = (place._replace(layer=1), place._replace(kind="time"), place._replace(kind="cross"))
    assert all(control(other, q, k, v) is None for other in others)
    control.reads = ("self", "time")
    torch.testing.assert_close(control(place._replace(kind="time"), q, k, v), expected)


@torch.no_grad()
def test_an_edit_by_the_same_words_is_the_source(masactrl):
    objective, batch = masactrl
    same = {"text": batch["text"], "text_length": batch["text_length"], "guidance": {"text": 1.0}}
    video = objective.pixels(objective.latents(batch["video"]))
    asked = request(batch, **same)
    found = objective.edit(replace(asked, sampling=replace(FEW, refinements=8)))
    other = objective.edit(request(batch, guidance={"text": 5.0}))
    assert (found - video).abs().mean() < 0.1 * (other - video).abs().mean()


@torch.no_grad()
def test_edits_depend_on_what_they_read_and_not_on_their_batch(masactrl):
    objective, batch = masactrl
    asked = request(batch, guidance={"text": 2.0})
    both = objective.edit(asked)
    assert both.shape == batch["video"].shape and both.min() >= 0 and both.max() <= 1
    names = ("video", "source_text", "source_length", "text", "text_length", "seeds")
    alone = objective.edit(replace(asked, **{name: getattr(asked, name)[1:] for name in names}))
    torch.testing.assert_close(alone[0], both[1], rtol=1e-3, atol=1e-3)
    objective.config, kept = replace(objective.config, first_layer=9), objective.config
    unread = objective.edit(asked)
    objective.config = kept
    assert not torch.allclose(unread, both, atol=1e-3)

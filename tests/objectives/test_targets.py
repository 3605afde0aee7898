"""Teachers: frozen, whole clips, the layer that was asked for, and grids that fit or are refused at once."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from filmstrip.errors import UserError
from filmstrip.models.video_transformer import FrameTransformer, TransformerArchitecture
from filmstrip.models.vit import ViT, ViTArchitecture
from filmstrip.objectives.targets import Teacher
from filmstrip.protocols import Grid

GRID = Grid(2, 4, 4)
VIDEO = ViTArchitecture(width=24, depth=2, num_heads=2, num_frames=4, size=32, patch_size=(2, 8, 8), drop_path=0.5)
IMAGE = TransformerArchitecture(width=16, depth=2, num_heads=2, num_frames=1, size=32, patch_size=8)


def clip():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8, generator=generator)


def teacher(encoder, **options):
    torch.manual_seed(0)
    return Teacher(encoder, GRID, num_frames=4, size=32, **options)


def test_features_are_those_of_the_last_block_before_the_norm():
    encoder = ViT(VIDEO)
    expected = encoder.eval()(clip(), layers=True).layers[-1]
    made = teacher(encoder)
    assert torch.equal(made.features(clip()), expected) and made.width == 24
    at = torch.tensor([[0, 31], [5, 7]])
    assert torch.equal(made(clip(), at), torch.stack([expected[0, [0, 31]], expected[1, [5, 7]]]))


def test_any_layer_and_the_encoders_own_tokens_can_be_asked_for():
    encoder = ViT(VIDEO)
    said = encoder.eval()(clip(), layers=True)
    assert torch.equal(teacher(encoder, layer=0).features(clip()), said.layers[0])
    assert torch.equal(teacher(encoder, layer=None).features(clip()), said.tokens)


def test_features_can_be_normalised_token_by_token():
    encoder = ViT(VIDEO)
    plain = teacher(encoder).features(clip())
    torch.testing.assert_close(teacher(encoder, normalise="layer").features(clip()), F.layer_norm(plain, (24,)))
    assert (teacher(encoder, normalise="l2").features(clip()).norm(dim=-1) - 1).abs().max() < 1e-5


def test_a_teacher_is_frozen_and_never_trains():
    objective = nn.Sequential(teacher(ViT(VIDEO))).train()
    assert not any(module.training for module in objective[0].encoder.modules())
    assert not any(p.requires_grad for p in objective.parameters())
    assert not objective[0](clip(), torch.zeros(2, 1, dtype=torch.int64)).requires_grad


def test_an_image_teacher_sees_the_first_frame_of_each_tubelet():
    encoder = FrameTransformer(IMAGE)
    made = teacher(encoder, frames="first")
    expected = encoder.eval()(clip()[:, ::2], layers=True).layers[-1]
    assert torch.equal(made.features(clip()), expected)


def test_clips_are_resized_for_patches_of_another_size():
    encoder = FrameTransformer(dataclasses.replace(IMAGE, size=28, patch_size=7))
    made = teacher(encoder, frames="first")
    assert made.features(clip()).shape == (2, 32, 16)
    flat = torch.full((1, 4, 3, 32, 32), 77, dtype=torch.uint8)
    small = torch.full((1, 2, 3, 28, 28), 77, dtype=torch.uint8)
    torch.testing.assert_close(made.features(flat), encoder(small, layers=True).layers[-1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"layer": 2}])
def test_what_does_not_fit_is_refused_when_it_is_built(options):
    wrong = FrameTransformer(IMAGE) if not options else ViT(VIDEO)
    with pytest.raises(UserError, match=r"FrameTransformer\) makes a grid of \(4, 4, 4\)|does not fit the clips"):
        teacher(wrong, **options)


def test_a_teacher_for_other_frames_is_refused_when_it_is_built():
    with pytest.raises(UserError, match=r"teacher \(ViT\) does not fit the clips: this network was built for"):
        teacher(ViT(dataclasses.replace(VIDEO, num_frames=8)))


def test_without_memory_for_weights_it_is_checked_as_well():
    with torch.device("meta"), pytest.raises(UserError, match="does not fit the clips"):
        teacher(ViT(dataclasses.replace(VIDEO, size=40)))
    with torch.device("meta"):
        assert teacher(ViT(VIDEO)).width == 24

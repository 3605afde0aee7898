import weakref

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from filmstrip.protocols import Grid
from filmstrip.systems.recognition.vivit import FactorisedHeads, ViViTConfig

SIZES = dict(width=24, depth=2, num_heads=2, num_frames=4, size=16, patch_size=(2, 8, 8))
VARIANTS = ("joint", "factorised_encoder", "factorised", "factorised_heads")


@pytest.fixture
def video():
    return torch.rand(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def vivit(variant, **changes):
    torch.manual_seed(0)
    objective = ViViTConfig(**SIZES, variant=variant, temporal_depth=2, num_classes=3, **changes).build()
    for parameter in objective.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return objective


@pytest.mark.parametrize("variant", VARIANTS)
def test_order_in_time_matters_to_every_variant(variant, video):
    objective = vivit(variant).eval()
    with torch.no_grad():
        forwards, backwards = objective.classify(video), objective.classify(video.flip(1))
    assert (forwards - backwards).abs().max() > 1e-4  # rounding is a hundredth of that


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns_all_of_itself(variant, video):
    objective = vivit(variant)
    objective({"video": video, "label": torch.tensor([0, 2])}).total.backward()
    assert [name for name, p in objective.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_layers_are_asked_for_and_lie_on_the_grid(variant, video):
    encoder = vivit(variant).encoder.eval()
    features = encoder(video, layers=True)
    places = features.grid.t * features.grid.h * features.grid.w
    assert {layer.shape for layer in features.layers} == {(2, places, 24)}
    assert features.tokens.shape == (2, places, 24) and features.pooled().shape == (2, 24)
    assert encoder(video).layers == ()


@pytest.mark.parametrize("part", ["frames", "temporal", None])
def test_layers_that_were_not_asked_for_are_not_held(part, video):
    encoder = vivit("factorised_encoder" if part else "joint").encoder.eval()
    stack = encoder.get_submodule(part or "")
    first, held = [], []
    stack.blocks[0].register_forward_hook(lambda block, given, out: first.append(weakref.ref(out)))
    stack.norm.register_forward_hook(lambda *_: held.append(first.pop()() is not None))
    with torch.no_grad():
        for layers in (False, True):
            encoder(video, layers=layers)
    assert held == [False, part != "frames"]  # the layers of a factorised encoder are those over time


def test_heads_see_their_time_or_their_frame():
    torch.manual_seed(0)
    attention, t, p = FactorisedHeads(16, 4, time=3), 3, 5
    x = torch.randn(2, t * p, 16)
    q, k, v = attention._project(x, None)
    step, place = torch.arange(t * p) // p, torch.arange(t * p) % p
    mask = torch.stack([place[:, None] == place] * 2 + [step[:, None] == step] * 2)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(attention(x), attention.out(rearrange(expected, "b h n d -> b n (h d)")))


def test_factorised_blocks_start_without_time():
    block = ViViTConfig(**SIZES, variant="factorised", num_classes=3).encoder().blocks[0]
    x = torch.randn(1, 8, 24)
    changed = x.clone()
    changed[:, 4:] += 1  # the second time step
    before, after = (block(tokens, Grid(2, 2, 2)) for tokens in (x, changed))
    torch.testing.assert_close(before[:, :4], after[:, :4])


def test_odd_heads_cannot_be_halved():
    with pytest.raises(ValueError, match="3 heads cannot be halved"):
        FactorisedHeads(24, 3, time=2)


def test_clips_of_another_size_are_refused(video):
    for variant in VARIANTS:
        encoder = vivit(variant).encoder
        with pytest.raises(ValueError, match="built for"):
            encoder(video.repeat(1, 2, 1, 1, 1))
        with pytest.raises(ValueError, match="built for a grid"):
            encoder(video.repeat(1, 1, 1, 2, 2))


def test_frozen_frames_learn_nothing_and_leave_nothing_behind(video):
    objective = vivit("factorised_encoder", frozen_frames=True, drop_path=0.5).train()
    frames = objective.encoder.frames
    assert not frames.training and objective.encoder.temporal.training
    steps, _ = objective.encoder.frames.steps(video)
    assert not steps.requires_grad
    objective({"video": video, "label": torch.tensor([0, 2])}).total.backward()
    named = dict(objective.named_parameters())
    assert all((p.grad is None) == name.startswith("encoder.frames.") for name, p in named.items())


def test_adapter_starts_as_the_identity(video):
    torch.manual_seed(0)
    config = ViViTConfig(**SIZES, variant="factorised_encoder", temporal_depth=1, frozen_frames=True, num_classes=3)
    encoder = config.build().encoder.eval()
    x = torch.randn(2, 5, 24)
    torch.testing.assert_close(encoder.adapter(x), x[:, 0])

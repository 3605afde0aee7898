"""The transformer of `generation.vdt` against ``diffusers``' ``LatteTransformer3DModel``, ``WanTransformer3DModel``
and ``LTXVideoTransformer3DModel``, both ways."""

import json

import pytest
import torch
from einops import rearrange

from filmstrip import systems
from filmstrip.errors import UserError
from filmstrip.models.video_dit import VideoDiT
from filmstrip.models.video_dit_layouts import (
    architecture_of,
    config_of,
    from_diffusers_dit,
    to_diffusers_dit,
)
from filmstrip.protocols import Grid

diffusers = pytest.importorskip("diffusers")

LATTE = dict(
    num_attention_heads=2,
    attention_head_dim=12,
    in_channels=4,
    out_channels=8,
    num_layers=2,
    cross_attention_dim=24,
    attention_bias=True,
    sample_size=8,
    patch_size=2,
    activation_fn="gelu-approximate",
    norm_type="ada_norm_single",
    norm_elementwise_affine=False,
    norm_eps=1e-6,
    caption_channels=20,
    video_length=3,
)
WAN = dict(
    patch_size=(1, 2, 2),
    num_attention_heads=2,
    attention_head_dim=12,
    in_channels=4,
    out_channels=4,
    text_dim=20,
    freq_dim=32,
    ffn_dim=40,
    num_layers=2,
)
LTX = dict(
    in_channels=4,
    out_channels=4,
    num_attention_heads=2,
    attention_head_dim=16,
    cross_attention_dim=32,
    num_layers=2,
    caption_channels=20,
)
KINDS = {"LatteTransformer3DModel": LATTE, "WanTransformer3DModel": WAN, "LTXVideoTransformer3DModel": LTX}
SIZE = Grid(3, 8, 8)
TIME = torch.tensor([3, 850])


def described(network):
    """What their ``config.json`` says."""
    return json.loads(network.to_json_string())


def pair(kind, **changes):
    """Their network with random weights, and ours with the same."""
    torch.manual_seed(0)
    theirs = getattr(diffusers, kind)(**(KINDS[kind] | changes)).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    config = architecture_of(described(theirs), "theirs")
    ours = VideoDiT(config, channels=4, size=SIZE).eval()
    ours.load_state_dict(from_diffusers_dit(theirs.state_dict(), ours.state_dict(), config))
    return theirs, ours


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, 3, 4, 8, 8, generator=generator), torch.randn(2, 5, 20, generator=generator)


def outputs(network, video, text, lengths=(5, 3)):
    """Their network's output, ``B T C H W``; LTX-Video's is given clips as tokens, and told of padding."""
    if "LTX" not in type(network).__name__:
        return network(video.transpose(1, 2), timestep=TIME, encoder_hidden_states=text).sample.transpose(1, 2)
    _, t, _, h, w = video.shape
    found = network(
        rearrange(video, "b t c h w -> b (t h w) c"),
        timestep=TIME,
        encoder_hidden_states=text,
        encoder_attention_mask=torch.arange(5) < torch.tensor(lengths)[:, None],
        num_frames=t,
        height=h,
        width=w,
        rope_interpolation_scale=(8 / 25, 32, 32),
    ).sample
    return rearrange(found, "b (t h w) c -> b t c h w", t=t, h=h)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_outputs_agree_and_weights_go_both_ways(kind, inputs, assert_close):
    video, text = inputs
    theirs, ours = pair(kind)
    expected = outputs(theirs, video, text)
    found = ours(video, TIME, ours.read(text), torch.arange(5) < torch.tensor([[5], [3]]))
    assert expected.std() > 0.1 and not torch.allclose(found[0], found[1])
    assert_close(found, expected)
    back = to_diffusers_dit(ours.state_dict(), ours.config)
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.state_dict().items())
    again = getattr(diffusers, kind).from_config(config_of(ours.config, channels=4, size=SIZE))
    again.load_state_dict(back)
    torch.testing.assert_close(outputs(again.eval(), video, text), expected)


@torch.no_grad()
def test_wan_takes_clips_of_any_size_and_latte_one_frame(assert_close):
    theirs, ours = pair("WanTransformer3DModel", cross_attn_norm=False)
    video, text = torch.randn(1, 5, 4, 6, 10), torch.randn(1, 3, 20)
    expected = theirs(video.transpose(1, 2), timestep=TIME[:1], encoder_hidden_states=text).sample.transpose(1, 2)
    assert_close(ours(video, TIME[:1], ours.read(text)), expected)
    theirs, _ = pair("LatteTransformer3DModel", video_length=1)
    ours = VideoDiT(architecture_of(described(theirs), "theirs"), channels=4, size=Grid(1, 8, 8)).eval()
    ours.load_state_dict(from_diffusers_dit(theirs.state_dict(), ours.state_dict(), ours.config))
    image = torch.randn(1, 1, 4, 8, 8)
    expected = theirs(image.transpose(1, 2), timestep=TIME[:1], encoder_hidden_states=text).sample.transpose(1, 2)
    assert_close(ours(image, TIME[:1], ours.read(text)), expected)


def test_published_sizes():
    latte = systems.find("generation.vdt:latte").objective
    wan = WAN | dict(num_attention_heads=12, attention_head_dim=128, text_dim=4096)
    wan |= dict(in_channels=16, out_channels=16, freq_dim=256, ffn_dim=8960, num_layers=30)
    with torch.device("meta"):
        for config, channels, size, millions in (
            (latte.transformer, 4, Grid(16, 64, 64), 1057.2),
            (
                architecture_of(described(diffusers.WanTransformer3DModel(**wan)), "Wan 2.1"),
                16,
                Grid(21, 60, 104),
                1418.9,
            ),
            (architecture_of(described(diffusers.LTXVideoTransformer3DModel()), "LTX"), 128, Grid(7, 16, 16), 1923.4),
        ):
            ours = VideoDiT(config, channels=channels, size=size)
            about = config_of(config, channels=channels, size=size)
            theirs = getattr(diffusers, about["_class_name"]).from_config(about)
            assert to_diffusers_dit(ours.state_dict(), config).keys() == theirs.state_dict().keys()
            counts = [sum(p.numel() for p in network.parameters()) for network in (ours, theirs)]
            assert counts[0] == counts[1]
            assert counts[0] / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_another_network_is_refused(kind):
    theirs, ours = pair(kind)
    weights = theirs.state_dict()
    with pytest.raises(UserError, match=r"lacks proj_out\.bias"):
        from_diffusers_dit({k: v for k, v in weights.items() if k != "proj_out.bias"}, ours.state_dict(), ours.config)
    with pytest.raises(UserError, match="no place for: image_embedder"):
        from_diffusers_dit(weights | {"image_embedder": TIME}, ours.state_dict(), ours.config)
    with pytest.raises(UserError, match="CogVideoXTransformer3DModel, and a video diffusion"):
        architecture_of({"_class_name": "CogVideoXTransformer3DModel"}, "here")


def test_settings_that_differ_are_refused():
    theirs, _ = pair("WanTransformer3DModel")
    with pytest.raises(UserError, match="image_dim 16, and None is known"):
        architecture_of(described(theirs) | {"image_dim": 16}, "here")
    with pytest.raises(UserError, match="36 channels of 16"):
        architecture_of(described(theirs) | {"in_channels": 16, "out_channels": 36}, "here")
    latte, _ = pair("LatteTransformer3DModel")
    with pytest.raises(UserError, match="attention_bias False"):
        architecture_of(described(latte) | {"attention_bias": False}, "here")


def test_sizes_that_do_not_fit_are_refused(inputs):
    video, text = inputs
    _, ours = pair("LatteTransformer3DModel")
    with pytest.raises(UserError, match="no multiple of patches of 1 x 2 x 2"):
        ours(video[..., :7], TIME, ours.read(text))
    with pytest.raises(ValueError, match=r"latents of \(3, 8, 8\), got \(3, 8, 6\)"):
        ours(video[..., :6], TIME, ours.read(text))
    with pytest.raises(UserError, match="at least the empty text"):
        ours(video, TIME)

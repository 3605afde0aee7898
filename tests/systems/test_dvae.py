"""The published layout, checked against the published arithmetic written out here on states of its names."""

import pytest
import torch
import torch.nn.functional as F

from filmstrip.errors import UserError
from filmstrip.objectives.codebook import Codebook
from filmstrip.systems.tokenizers.dvae import DVAEConfig, from_dalle

WIDTH, CODES, INIT = 16, 32, 8


def published_state(side, generator):
    """Names and shapes as published, with random values."""
    state = {}

    def conv(name, inputs, outputs, kernel):
        scale = (inputs * kernel**2) ** -0.5
        state[f"{name}.w"] = torch.randn(outputs, inputs, kernel, kernel, generator=generator) * scale
        state[f"{name}.b"] = torch.randn(outputs, generator=generator) * 0.1

    encoder = side == "encoder"
    first = WIDTH if encoder else INIT
    conv("blocks.input", *((3, WIDTH, 7) if encoder else (CODES, INIT, 1)))
    widths = [WIDTH * 2**i for i in range(4)]
    for group, width in enumerate(widths if encoder else widths[::-1], 1):
        for block in (1, 2):
            name = f"blocks.group_{group}.block_{block}"
            if first != width:
                conv(f"{name}.id_path", first, width, 1)
            inner = width // 4
            sizes = [(first, inner), (inner, inner), (inner, inner), (inner, width)]
            for i, (pair, kernel) in enumerate(zip(sizes, (3, 3, 3, 1) if encoder else (1, 3, 3, 3)), 1):
                conv(f"{name}.res_path.conv_{i}", *pair, kernel)
            first = width
    conv("blocks.output.conv", first, CODES if encoder else 6, 1)
    return state


def published_forward(state, x, side):
    def conv(name, x):
        weight = state[f"{name}.w"]
        return F.conv2d(x, weight, state[f"{name}.b"], padding=weight.shape[-1] // 2)

    x = conv("blocks.input", x)
    for group in range(1, 5):
        for block in (1, 2):
            name = f"blocks.group_{group}.block_{block}"
            y = x
            for i in range(1, 5):
                y = conv(f"{name}.res_path.conv_{i}", F.relu(y))
            x = (conv(f"{name}.id_path", x) if f"{name}.id_path.w" in state else x) + y / 64
        if group < 4:
            x = F.max_pool2d(x, 2) if side == "encoder" else F.interpolate(x, scale_factor=2)
    return conv("blocks.output.conv", F.relu(x))


@pytest.fixture
def states():
    generator = torch.Generator().manual_seed(0)
    return published_state("encoder", generator), published_state("decoder", generator)


@pytest.fixture
def tokenizer():
    return DVAEConfig(width=WIDTH, codebook=Codebook(kind="gumbel", size=CODES, dim=INIT)).build().eval()


@torch.no_grad()
def test_codes_and_pixels_are_the_published_ones(states, tokenizer):
    encoder, decoder = states
    missing, unknown = tokenizer.load_state_dict(from_dalle(encoder, decoder), strict=False)
    assert not unknown and set(missing) == {"bottleneck.temperature", "bottleneck.weight"}
    frames = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ids = published_forward(encoder, frames * 0.8 + 0.1, "encoder").argmax(1)
    tokens = tokenizer.encode(frames[:, None])
    assert torch.equal(tokens.ids, ids.flatten(1)) and len(ids.unique()) > 2
    stats = published_forward(decoder, F.one_hot(ids, CODES).movedim(-1, 1).float(), "decoder")
    pixels = ((stats[:, :3].sigmoid() - 0.1) / 0.8).clamp(0, 1)
    torch.testing.assert_close(tokenizer.decode(tokens)[:, 0], pixels, rtol=1e-5, atol=1e-5)


def test_another_state_is_refused(states):
    with pytest.raises(UserError, match=r"not the state of DALL-E's dVAE"):
        from_dalle({}, states[1])


@pytest.mark.parametrize("side", [0, 1])
def test_dalles_states_fit_whole_or_not_at_all(side):
    generator = torch.Generator().manual_seed(0)
    states = [published_state(part, generator) for part in ("encoder", "decoder")]
    whole = dict(states[side])
    assert from_dalle(*states)
    states[side] = whole | {"blocks.output.norm.w": torch.ones(1)}
    with pytest.raises(UserError, match=r"no place for: blocks\.output\.norm\.w$"):
        from_dalle(*states)
    path = next(name for name in whole if name.endswith("id_path.w"))
    for lost in (path, "blocks.group_2.block_1.res_path.conv_2.b"):
        states[side] = {name: tensor for name, tensor in whole.items() if name != lost}
        with pytest.raises(UserError, match=f"lacks {lost};"):
            from_dalle(*states)

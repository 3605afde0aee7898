"""The discrete VAE against OpenAI's own package, through the key map, both ways.

The package asks for torchvision and uses it nowhere: ``pip install --no-deps dall-e attrs requests`` is enough.
"""

import pytest
import torch
import torch.nn.functional as F

from filmstrip.objectives.codebook import Codebook
from filmstrip.protocols import Grid, Tokens
from filmstrip.systems import find
from filmstrip.systems.tokenizers.dvae import DVAEConfig, from_dalle, to_dalle

dall_e = pytest.importorskip("dall_e", reason="dall-e is not installed: pip install --no-deps dall-e attrs requests")

WIDTH, CODES, INIT = 64, 512, 8  # as small as it allows


@pytest.fixture
def pair():
    """Their encoder and decoder, and ours with their weights."""
    torch.manual_seed(0)
    encoder = dall_e.Encoder(n_hid=WIDTH, vocab_size=CODES).eval()
    decoder = dall_e.Decoder(n_hid=WIDTH, n_init=INIT, vocab_size=CODES).eval()
    for part in (encoder, decoder):
        for name, parameter in part.named_parameters():
            if name.endswith(".b"):
                torch.nn.init.normal_(parameter, std=0.1)
    ours = DVAEConfig(width=WIDTH, codebook=Codebook(kind="gumbel", size=CODES, dim=INIT)).build().eval()
    _, unknown = ours.load_state_dict(from_dalle(encoder.state_dict(), decoder.state_dict()), strict=False)
    assert not unknown
    return encoder, decoder, ours


@pytest.fixture
def frames():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def ids():
    return torch.randint(0, CODES, (2, 4, 4), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_codes(pair, frames, assert_close):
    encoder, _, ours = pair
    logits = encoder(dall_e.map_pixels(frames))
    assert_close(ours.autoencoder.encode(frames[:, None])[:, 0], logits.movedim(1, -1))
    chosen = logits.argmax(dim=1).flatten(1)
    assert len(chosen.unique()) > 1 and torch.equal(ours.encode(frames[:, None]).ids, chosen)


@torch.no_grad()
def test_pixels(pair, ids, assert_close):
    _, decoder, ours = pair
    stats = decoder(F.one_hot(ids, CODES).movedim(-1, 1).float())
    decoded = ours.decode(Tokens(Grid(1, 4, 4), ids=ids.flatten(1)))
    assert_close(decoded[:, 0], dall_e.unmap_pixels(stats[:, :3].sigmoid()))


@torch.no_grad()
def test_our_weights_run_there(pair, frames, ids, assert_close):
    encoder, decoder, ours = pair
    codes = F.one_hot(ids, CODES).movedim(-1, 1).float()
    before = encoder(frames), decoder(codes)
    for part, state in zip((encoder, decoder), to_dalle(ours.state_dict())):
        part.load_state_dict(state)
    assert_close(encoder(frames), before[0])
    assert_close(decoder(codes), before[1])


def test_dalle_preset_has_their_weights():
    with torch.device("meta"):
        ours = find("tokenizers.dvae:dalle").objective.build()
    theirs = dall_e.Encoder(device=torch.device("meta")), dall_e.Decoder(device=torch.device("meta"))
    for state, part in zip(to_dalle(ours.state_dict()), theirs):
        shapes = {name: tensor.shape for name, tensor in part.state_dict().items()}
        assert {name: tensor.shape for name, tensor in state.items()} == shapes

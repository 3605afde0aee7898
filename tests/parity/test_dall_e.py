"""The discrete VAE against OpenAI's own package, through the key map, both ways.

The package asks for torchvision and uses it nowhere: ``pip install --no-deps dall-e attrs requests`` is enough.
"""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from filmstrip.objectives.codebook import Codebook
from filmstrip.protocols import Grid, Tokens
from filmstrip.runs.initial_weights import start
from filmstrip.systems import find
from filmstrip.systems.tokenizers.dvae import DVAEConfig, from_dalle

dall_e = pytest.importorskip("dall_e", reason="dall-e is not installed: pip install --no-deps dall-e attrs requests")

WIDTH, CODES, INIT = 64, 512, 8  # as small as it allows


@pytest.fixture
def pair(tmp_path):
    """Their encoder and decoder, and ours with their weights."""
    torch.manual_seed(0)
    encoder = dall_e.Encoder(n_hid=WIDTH, vocab_size=CODES).eval()
    decoder = dall_e.Decoder(n_hid=WIDTH, n_init=INIT, vocab_size=CODES).eval()
    for part in (encoder, decoder):
        for name, parameter in part.named_parameters():
            if name.endswith(".b"):
                torch.nn.init.normal_(parameter, std=0.1)
    ours = DVAEConfig(width=WIDTH, codebook=Codebook(kind="gumbel", size=CODES, dim=INIT)).build().eval()
    published = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    published |= {f"decoder.{name}": value for name, value in decoder.state_dict().items()}
    save_file(published, tmp_path / "dall_e.safetensors")
    start(ours, tmp_path / "dall_e.safetensors")
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


def test_dalle_preset_has_their_weights():
    with torch.device("meta"):
        ours = find("tokenizers.dvae:dalle").objective.build()
    theirs = dall_e.Encoder(device=torch.device("meta")), dall_e.Decoder(device=torch.device("meta"))
    weights = from_dalle(*(part.state_dict() for part in theirs))
    state = ours.state_dict()
    assert {name: value.shape for name, value in weights.items()} == {name: state[name].shape for name in weights}
    assert not [
        name for name in state.keys() - weights.keys() if name.startswith(("autoencoder.", "bottleneck.codes"))
    ]

"""The VQ-GAN of TECO's published code, through the key map of its checkpoints.

Repository wilson1yan/teco, commit 733d2b1 (JAX 0.10, flax 0.12). Its ``VQGAN``: resolution 16, ch 32, ch_mult 1 and
2, num_res_blocks 1, attn_resolutions 8, z_channels 6, double_z off, n_embed 16, embed_dim 6. Names are those of the
flattened ``params`` and ``stats`` after "vqgan/". It coded three times ``recipe_input("frames")``, as pixels in
-1..1, and decoded ``recipe_video("frame_ids")`` divided by 16.
"""

import pytest
import torch
from einops import rearrange
from published import recipe_input, recipe_video, stored

from filmstrip.errors import UserError
from filmstrip.objectives.codebook import Codebook
from filmstrip.protocols import Grid, Tokens
from filmstrip.systems.tokenizers.vqgan import VQGANConfig

STORED = stored("vqgan")
VIDEO = 3 * recipe_input("frames", (2, 2, 3, 16, 16)) / 2 + 0.5
IDS = (recipe_video("frame_ids", (2, 2, 8, 8)) // 16).flatten(1).long()


def build():
    codebook = Codebook(kind="learnt", size=16, dim=6)
    return VQGANConfig(widths=(32, 64), depth=1, attention_levels=(1,), codebook=codebook).build().eval()


def theirs():
    return {name.removeprefix("vqgan/"): w for name, w in STORED.weights().items()}


@torch.no_grad()
def test_latents_codes_and_pixels():
    ours = build()
    missing, unexpected = ours.load_state_dict(ours.from_published(theirs()), strict=False)
    assert not unexpected and not any(name.startswith(("autoencoder", "bottleneck")) for name in missing), missing
    # Either side is 1 to 3e-5 off what float64 gives: groups of one or two channels, normalised many times over.
    assert STORED.error("vqgan_latents", ours.autoencoder.encode(VIDEO).flatten(0, 1)) < 5e-5
    assert STORED.error("vqgan_ids", ours.encode(VIDEO).ids) == 0
    decoded = ours.autoencoder.decode(ours.latents_of(Tokens(Grid(2, 8, 8), ids=IDS))) * 2 - 1
    assert STORED.error("vqgan_pixels", rearrange(decoded, "b t c h w -> b t h w c")) < 1e-4


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="no place for: decoder/ResnetBlock_6"):
        build().from_published(theirs() | {"decoder/ResnetBlock_6/Conv_0/bias": torch.zeros(1)})

"""ElasticTok against its published code, through the key map of its checkpoints.

Repository LargeWorldModel/ElasticTok, commit 1e92c08 (JAX 0.10, flax 0.12). Its ``ElasticTok`` twice, with
``bottleneck_type`` "fsq" (levels 8, 8, 5) and "vae" (3 channels): width 32, intermediate_size 64, two layers of two
heads on either side, patches of 2 x 4 x 4, two blocks of 4 frames of 16 x 16 pixels (32 tokens), theta 5e6,
rms_norm_eps 1e-5; ``scan_layers``, ``scan_attention`` and ``scan_mlp`` off. What it imports from ``tux`` did nothing,
``ringattention``'s inference was plain attention under its mask, on one device, and the 2048 tokens of a block that
its divergence is written for were 32. Names are those of the flattened ``params`` after "fsq/" or "vae/". Pixels were
``recipe_video("video")``, of which the blocks kept 5 and 32 tokens in the first clip, 17 and 9 in the second;
``training`` was off. The divergence is ``aux_loss`` over its weight of 1e-8. FSQ's ``bound`` was given twice
``recipe_input("latents")``.
"""

import pytest
import torch
from published import TOLERANCE, recipe_input, recipe_video, stored

from filmstrip.errors import UserError
from filmstrip.objectives.codebook import Codebook
from filmstrip.protocols import as_float
from filmstrip.systems.tokenizers.elastictok import ElasticTokConfig

STORED = stored("elastictok")
VIDEO = recipe_video("video", (2, 8, 3, 16, 16))
LENGTHS = torch.tensor([[5, 32], [17, 9]])
BOTTLENECKS = {"fsq": {"codebook": Codebook(kind="fsq", levels=(8, 8, 5))}, "vae": {"latent_dim": 3}}


def load(kind, stacked=False):
    """Ours with their weights; ``stacked`` as a checkpoint whose layers are in one array each."""
    theirs = {n.removeprefix(f"{kind}/"): w for n, w in STORED.weights().items() if n.startswith(kind)}
    if stacked:
        layers = [{n: w for n, w in theirs.items() if f"_blocks/{i}/" in n} for i in range(2)]
        for first, second in zip(*layers):
            theirs[first.replace("/0/", "/scan_decoder/")] = torch.stack([theirs.pop(first), theirs.pop(second)])
    ours = ElasticTokConfig(
        width=32,
        depth=2,
        num_heads=2,
        size=16,
        patch_size=(2, 4, 4),
        min_tokens=4,
        perceptual_weight=0.0,
        **BOTTLENECKS[kind],
    ).build()
    missing, unexpected = ours.load_state_dict(ours.from_published(theirs), strict=False)
    assert not unexpected and all("normalise" in name for name in missing), missing
    return ours.eval()


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("kind", BOTTLENECKS)
@torch.no_grad()
def test_tokens_and_pixels_of_each_length(kind, stacked):
    ours = load(kind, stacked)
    tokens = ours.encode(VIDEO, LENGTHS)
    if kind == "fsq":
        # Their index of a place without a token is that of the middle of the cube, ours zero.
        middle = ours.bottleneck(torch.zeros(1, 3)).ids
        assert STORED.error("fsq_ids", torch.where(tokens.kept(), tokens.ids, middle)) == 0
    else:
        assert STORED.error("vae_latents", ours.latents_of(tokens).flatten(1, 3)) < TOLERANCE
    pixels = ours.autoencoder.decode(ours.latents_of(tokens)) * 2 - 1
    pixels = torch.stack([patches(clip) for clip in pixels])
    assert STORED.error(f"{kind}_pixels", pixels) < TOLERANCE


def patches(clip):
    """``T C H W`` as the published code has it: a row for each cube, pixels by pixels."""
    cubes = clip.unflatten(0, (-1, 2)).unflatten(3, (-1, 4)).unflatten(5, (-1, 4))
    return cubes.permute(0, 3, 5, 1, 4, 6, 2).flatten(3).flatten(0, 2)


def test_the_bound_before_rounding():
    latents = 2 * recipe_input("latents", (80, 3))
    assert STORED.error("fsq_bound", load("fsq").bottleneck._bound(latents)) < TOLERANCE


@torch.no_grad()
def test_the_divergence_is_summed_over_what_a_block_keeps():
    ours = load("vae")
    kept = ours._grid(LENGTHS).kept()
    _, passage = ours.pass_through(as_float(VIDEO), kept)
    assert STORED.error("vae_kl", passage.loss[None] / 1e-8) < TOLERANCE


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="has no encoder/is_masked_embed"):
        load("vae").from_published({})

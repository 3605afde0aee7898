"""TECO against its published code, through the key map of its checkpoints.

Repository wilson1yan/teco, commit 733d2b1 (JAX 0.10, flax 0.12; ``jnp.clip`` with the old names of its arguments).
Its ``TECO`` with a VQ-GAN of 8 x 8 codes of 16, whose codebook of 6 channels is the recipe's ``vqvae/codebook``;
encoder and decoder of depths 32 and 64 with one block, embedding_dim 16, codebook of 12 codes of 8 channels; temporal
transformer and MaskGit of width 32, two layers of two heads (mlp_dim 128), z_ds 2, vocab_dim 16; seq_len 4,
action_dim 3 of action_embed_dim 5; no dropout and drop_loss_rate 0. Names are those of the flattened ``params``.
Frames were ``recipe_video("ids")`` divided by 16; the first clip had the actions 0, 2, 1, 0, the second none (-1).
The prior saw ``recipe_video("codes")`` modulo 13, of which 12 is the mask, and the second summary. Losses are
``recon_loss``, and ``codebook_loss`` with ``commitment_loss``.
"""

from dataclasses import replace

import pytest
import torch
from einops import rearrange
from published import TOLERANCE, recipe_video, stored
from safetensors.torch import save_file

from filmstrip.errors import UserError
from filmstrip.objectives.codebook import Codebook
from filmstrip.runs.initial_weights import start
from filmstrip.systems import find
from filmstrip.systems.generation.teco import TECOConfig
from filmstrip.systems.tokenizers.vqgan import VQGANConfig

STORED = stored("teco")
IDS = (recipe_video("ids", (2, 4, 8, 8)) // 16).long()
CODES = recipe_video("codes", (2, 4, 4)).flatten(1).long() % 13
ACTION = torch.tensor([[0, 2, 1, 0], [0, 0, 0, 0]])
CONFIG = TECOConfig(
    tokenizer=VQGANConfig.small(codebook=Codebook(kind="learnt", size=16, dim=6)),
    num_frames=4,
    size=32,
    encoder_widths=(32, 64),
    encoder_blocks=1,
    decoder_widths=(32, 64),
    decoder_blocks=1,
    codebook_size=12,
    code_dim=8,
    latent_dim=16,
    stride=2,
    width=32,
    depth=2,
    num_heads=2,
    prior_width=32,
    prior_depth=2,
    prior_num_heads=2,
    prior_code_width=16,
    drop_loss=0.0,
    conditions=("action",),
    num_actions=3,
    action_width=5,
)


def load(config):
    """Ours with their weights, and the weights."""
    theirs = STORED.weights()
    codes = theirs.pop("vqvae/codebook")
    ours = config.build().eval()
    missing, unexpected = ours.load_state_dict(ours.from_published(theirs), strict=False)
    assert not unexpected and all(name.startswith("space.") for name in missing), missing
    ours.tokenizer.bottleneck.codes.data.copy_(codes[None])
    return ours, theirs


def summaries(ours, latents, unknown):
    given = ours.conditions(2, 4, label=None, action=ACTION, unknown=unknown)
    return ours.history.spread(ours.history(latents[:, :-1], None if given is None else given[:, 1:]))


def channels_last(frames):
    return rearrange(frames, "b t d h w -> b t h w d")


@torch.no_grad()
def test_every_network_agrees():
    ours, _ = load(CONFIG)
    latents, passage = ours.code(IDS)
    assert STORED.error("first", channels_last(latents[:, :1])) < TOLERANCE
    assert STORED.error("coded", channels_last(latents[:, 1:])) < TOLERANCE
    assert STORED.error("ids", passage.ids[:, 1:]) == 0
    summary = summaries(ours, latents, torch.tensor([False, True]))
    assert STORED.error("summary", channels_last(summary)) < TOLERANCE
    prior = ours.prior(CODES, rearrange(summary[:, 1], "b d h w -> b (h w) d"))
    assert STORED.error("prior", prior) < TOLERANCE
    logits = ours.decoder(torch.cat([summary, latents[:, 1:]], dim=2).flatten(0, 1)).unflatten(0, (2, 3))
    assert STORED.error("logits", logits) < TOLERANCE
    recon_loss = ours.space.nats(logits.flatten(0, 1), IDS[:, 1:].flatten(0, 1)).mean()
    assert STORED.error("losses", torch.stack([recon_loss, 0.5 * passage.loss])) < TOLERANCE


@torch.no_grad()
def test_without_actions_what_stands_in_their_place_is_part_of_the_rest():
    ours, theirs = load(CONFIG)
    without, _ = load(replace(CONFIG, conditions=()))
    latents, _ = ours.code(IDS)
    ours.conditions.action.weight[:] = theirs["action_embeds/embedding"][0]
    expected = summaries(ours, latents, torch.tensor([False, False]))
    assert (expected - summaries(load(CONFIG)[0], latents, torch.tensor([False, False]))).abs().max() > 1e-3
    torch.testing.assert_close(summaries(without, latents, None), expected, rtol=1e-5, atol=1e-5)


# Parameters that flax counts in the published configurations, and where those differ from our presets.
PUBLISHED = {
    "dmlab": (173_088_944, {"latent_dim": 64, "num_actions": 6}),
    "minecraft": (271_278_832, {"latent_dim": 128, "decoder_blocks": 6, "num_actions": 6}),
    "habitat": (386_098_544, {"codebook_size": 2048, "num_actions": 6}),
    "kinetics600": (1_093_688_688, {}),
}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_presets_have_as_many_weights_as_the_published_configurations(preset):
    expected, changes = PUBLISHED[preset]
    config = replace(find(f"generation.teco:{preset}").objective, **changes)
    with torch.device("meta"):
        ours = config.build()
    expected += 8 * config.prior_width  # the prior's positions: two tables as wide as the network, not half as wide
    if not config.conditions:
        # There the embedding of no action is with every frame: seven of them, and their channels' part of a kernel.
        expected -= 7 * 16 + 16 * config.stride**2 * config.width
    assert sum(p.numel() for name, p in ours.named_parameters() if not name.startswith("space.")) == expected


def test_what_does_not_fit_is_refused():
    ours, theirs = load(CONFIG)
    with pytest.raises(UserError, match="no place for: more"):
        ours.from_published(theirs | {"more": torch.zeros(1)})
    del theirs["z_tfm/LayerNorm_0/bias"]
    with pytest.raises(UserError, match="has no z_tfm/LayerNorm_0/bias"):
        ours.from_published(theirs)


@torch.no_grad()
def test_a_run_starts_with_a_file_of_released_weights(tmp_path):
    """Though a part of it is called its encoder, which elsewhere is what a run starts with."""
    expected, theirs = load(CONFIG)
    ours = CONFIG.build().eval()
    save_file({name: tensor.contiguous() for name, tensor in theirs.items()}, tmp_path / "teco.safetensors")
    start(ours, tmp_path / "teco.safetensors")
    networks = {name: tensor for name, tensor in expected.state_dict().items() if not name.startswith("space.")}
    assert networks.keys() < ours.state_dict().keys()
    assert all(torch.equal(ours.state_dict()[name], tensor) for name, tensor in networks.items())

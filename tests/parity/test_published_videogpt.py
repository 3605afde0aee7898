"""VideoGPT against its published code, through the key map of released weights.

Repository wilson1yan/VideoGPT, commit a175cdb. Its ``VQVAE`` (embedding_dim 8, n_codes 16, n_hiddens 12, n_res_layers
1, downsample 2 x 4 x 4, sequence_length 4, resolution 16) and, around it, its ``VideoGPT`` twice (hidden_dim 24,
heads 2, layers 2, attn_type full): without conditions, and with five classes and one first frame (n_cond_frames 1).
They ran in evaluation mode, PyTorch 2.13, with ``pytorch_lightning``'s module replaced by PyTorch's; the mask buffers
and the counts of batches stayed as they were. The two priors share what they have in common. The VQ-VAE coded ten
times ``recipe_input("video")``, so that many codes come up (its videos are pixels less a half), and decoded
``recipe_video("ids")`` divided by 16; the priors saw these codes, classes 1 and 4, and the video's first frame.

A third prior, without conditions, with attn_type sparse and a VQ-VAE of twice the size (sequence_length 8, resolution
32), whose names follow "sparse/", was given the codes of ``recipe_video("many_ids")`` one by one, as in sampling: all
at once its sparse attention needs a GPU.
"""

from dataclasses import replace

import pytest
import torch
from published import recipe_input, recipe_video, stored

from filmstrip.errors import UserError
from filmstrip.objectives.codebook import Codebook
from filmstrip.protocols import Grid, Tokens
from filmstrip.runs.initial_weights import start
from filmstrip.systems import find
from filmstrip.systems.generation.videogpt import VideoGPTConfig
from filmstrip.systems.tokenizers.vqvae3d import VQVAE3DConfig

STORED = stored("videogpt")
VIDEO = 10 * recipe_input("video", (2, 4, 3, 16, 16)) + 0.5
IDS = (recipe_video("ids", (2, 2, 4, 4)) // 16).flatten(1).long()
MANY_IDS = (recipe_video("many_ids", (2, 4, 8, 8)) // 16).flatten(1).long()
CONDITIONS = ("label", "frames")
WIDTHS = dict(width=24, depth=2, num_heads=2)
TOKENIZER = VQVAE3DConfig(
    width=12,
    residual_width=6,
    depth=1,
    patch_size=(2, 4, 4),
    form="released",
    num_frames=4,
    size=16,
    codebook=Codebook(size=16, dim=8),
)


def load(module, theirs):
    """All but what counts batches, which their weights may lack."""
    missing, unexpected = module.load_state_dict(module.from_published(theirs), strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing), missing
    return module.eval()


def given(prefix):
    """The published weights under a prefix; without one, all that are not of the third prior."""
    weights = {n.removeprefix(prefix): w for n, w in STORED.weights().items() if n.startswith(prefix)}
    return {name: w for name, w in weights.items() if not name.startswith("sparse/")}


def prior_weights(conditional):
    """Of one of the two priors: what only the other has is left out."""
    only = (".w.weight", ".wb.weight") if not conditional else (".g", ".b")
    theirs = {name: w for name, w in given("").items() if not name.endswith(only)}
    if not conditional:
        parts = ("resnet.", "cond_pos_embd.", "enc_attn.", "pre_enc_norm.")
        theirs = {name: w for name, w in theirs.items() if not any(part in name for part in parts)}
    return theirs


@pytest.fixture
def tokenizer():
    return load(TOKENIZER.build(), given("vqvae."))


@torch.no_grad()
def test_latents_and_codes(tokenizer):
    assert STORED.error("latents", tokenizer.autoencoder.encode(VIDEO)) < 1e-5
    ids = tokenizer.encode(VIDEO).ids
    assert len(ids.unique()) > 4 and STORED.error("ids", ids) == 0


@torch.no_grad()
def test_pixels(tokenizer):
    decoded = tokenizer.autoencoder.decode(tokenizer.latents_of(Tokens(Grid(2, 4, 4), ids=IDS)))
    assert STORED.error("decoded", decoded - 0.5) < 1e-5


@pytest.mark.parametrize("conditional", [False, True])
@torch.no_grad()
def test_logits_of_codes(conditional):
    config = VideoGPTConfig(
        tokenizer=TOKENIZER,
        num_frames=4,
        size=16,
        attention="full",
        conditions=CONDITIONS if conditional else (),
        num_classes=5,
        **WIDTHS,
    )
    ours = load(config.build(), prior_weights(conditional))
    vector = ours.vector(torch.tensor([1, 4]), None)
    context = None if ours.frames is None else ours.frames(VIDEO)
    logits = ours.transformer(IDS, vector, context)
    name = "conditional_logits" if conditional else "unconditional_logits"
    assert STORED.error(name, logits) < 1e-4


@torch.no_grad()
def test_logits_of_sparse_attention():
    tokenizer = replace(TOKENIZER, num_frames=8, size=32)
    config = VideoGPTConfig(tokenizer=tokenizer, num_frames=8, size=32, attention="blocks", **WIDTHS)
    ours = load(config.build(), given("sparse/"))
    assert STORED.error("sparse_logits", ours.transformer(MANY_IDS)) < 1e-4
    full = load(replace(config, attention="full").build(), given("sparse/"))
    assert STORED.error("sparse_logits", full.transformer(MANY_IDS)) > 1e-2


@torch.no_grad()
def test_a_run_starts_with_a_file_of_released_weights(tmp_path):
    """As one would be written from what the authors' checkpoint holds under ``state_dict``."""
    config = VideoGPTConfig(tokenizer=TOKENIZER, num_frames=4, size=16, attention="full", **WIDTHS)
    ours = config.build().eval()
    torch.save({"state_dict": prior_weights(False)}, tmp_path / "videogpt.ckpt")
    start(ours, tmp_path / "videogpt.ckpt")
    assert STORED.error("unconditional_logits", ours.transformer(IDS)) < 1e-4
    with pytest.raises(UserError, match=r"in our names, lacks transformer\.blocks\.0\.norm_context"):
        start(replace(config, conditions=("frames",)).build(), tmp_path / "videogpt.ckpt")


def test_other_states_are_refused():
    with pytest.raises(UserError, match=r"published VQ-VAE: it lacks codebook\.embeddings"):
        TOKENIZER.build().from_published({})
    prior = VideoGPTConfig(tokenizer=TOKENIZER, num_frames=4, size=16, **WIDTHS)
    with pytest.raises(UserError, match=r"published VideoGPT: it lacks attn_stack\.right_shift\.sos"):
        prior.build().from_published({f"vqvae.{n}": w for n, w in given("vqvae.").items()})
    with pytest.raises(UserError, match="not the state of DALL-E's dVAE"):
        replace(prior, tokenizer=find("tokenizers.dvae:tiny").objective).build().from_published({})

"""The transformer over codes without a condition is GPT-2 with the sigmoid's GELU and without biases on queries, keys
and values: the same weights, the same logits and samples.

So is the whole of VideoGPT: a video's likelihood is that of its codes, and a sample is what GPT-2's codes decode to.
"""

import pytest
import torch
import torch.nn.functional as F

from filmstrip import systems
from filmstrip.nn.sampling import Sampling
from filmstrip.protocols import Condition, Grid, Tokens
from filmstrip.systems.generation.videogpt import VideoGPTConfig
from filmstrip.systems.generation.videogpt.transformer import CodeTransformer
from filmstrip.weights.keymap import KeyMap

transformers = pytest.importorskip("transformers")

CODES, PLACES, WIDTH = 13, 24, 32
BLOCK = {
    "ln_1": "norm1",
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.out",
    "ln_2": "norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
MAP = KeyMap(
    (
        ("transformer.wte.weight", "embed.weight"),
        ("transformer.wpe.weight", "positions.0"),
        ("transformer.ln_f.weight", "norm.weight"),
        ("transformer.ln_f.bias", "norm.bias"),
        ("lm_head.weight", "head.weight"),
        *(
            (f"transformer.h.{{i}}.{theirs}.{kind}", f"blocks.{{i}}.{ours}.{kind}")
            for theirs, ours in BLOCK.items()
            for kind in ("weight", "bias")
        ),
    )
)


def gpt2(codes, places):
    """GPT-2, with one more word that comes before the first code."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=codes + 1,
        n_positions=places,
        n_embd=WIDTH,
        n_layer=3,
        n_head=4,
        activation_function="quick_gelu",
        layer_norm_epsilon=1e-10,
        tie_word_embeddings=False,
        bos_token_id=codes,
        eos_token_id=None,
        pad_token_id=codes,
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    for block in model.transformer.h:
        torch.nn.init.zeros_(block.attn.c_attn.bias)
    return model


def our_weights(theirs, codes):
    """Their matrices are the other way round, and they also have logits for the extra word."""
    state = {name: w.T if ".c_" in name and w.ndim == 2 else w for name, w in theirs.state_dict().items()}
    weights = {name: w for name, w in MAP.ours(state).items() if not name.endswith("attention.qkv.bias")}
    return weights | {"head.weight": weights["head.weight"][:codes]}


def greedy_codes(theirs, codes, places):
    start = torch.full((1, 1), codes)
    made = theirs.generate(
        start,
        attention_mask=torch.ones_like(start),
        do_sample=False,
        suppress_tokens=[codes],
        min_new_tokens=places,
        max_new_tokens=places,
    )
    return made[:, 1 : places + 1]


@pytest.fixture
def pair():
    """GPT-2 and ours with its weights."""
    theirs = gpt2(CODES, PLACES)
    ours = CodeTransformer(codebook_size=CODES, grid=(PLACES, 1, 1), width=WIDTH, depth=3, num_heads=4).eval()
    ours.load_state_dict(our_weights(theirs, CODES))
    return ours, theirs


def test_logits_agree(pair, assert_close):
    ours, theirs = pair
    ids = torch.randint(0, CODES, (2, PLACES), generator=torch.Generator().manual_seed(1))
    shifted = torch.cat([torch.full((2, 1), CODES), ids[:, :-1]], dim=1)
    with torch.no_grad():
        assert_close(ours(ids), theirs(shifted).logits[..., :CODES])


def test_cached_sampling_agrees(pair):
    ours, theirs = pair
    made = ours.generate(torch.zeros(1, PLACES), Sampling(temperature=0.0))
    assert torch.equal(made, greedy_codes(theirs, CODES, PLACES))


@pytest.fixture
def videogpt():
    """GPT-2 and VideoGPT with its weights, over 2 x 4 x 4 codes of an untrained VQ-VAE."""
    config = VideoGPTConfig(
        tokenizer=systems.find("tokenizers.vqvae3d:tiny").objective,
        num_frames=4,
        size=16,
        width=WIDTH,
        depth=3,
        num_heads=4,
        attention="full",
        dropout=0.0,
    )
    torch.manual_seed(1)
    ours = config.build().eval()
    axes = [torch.randn(size, WIDTH) for size in (2, 4, 4)]
    theirs = gpt2(64, 32)
    t, h, w = axes
    with torch.no_grad():
        theirs.transformer.wpe.weight.copy_((t[:, None, None] + h[:, None] + w).flatten(0, 2))
    weights = {name: value for name, value in our_weights(theirs, 64).items() if not name.startswith("positions")}
    ours.transformer.load_state_dict(weights | {f"positions.{i}": axis for i, axis in enumerate(axes)})
    return ours, theirs


@torch.no_grad()
def test_likelihood_of_video_is_that_of_its_codes(videogpt, assert_close):
    ours, theirs = videogpt
    video = torch.rand(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    ids = ours.tokenizer.encode(video).ids
    assert len(ids.unique()) > 4
    logits = theirs(torch.cat([torch.full((2, 1), 64), ids[:, :-1]], dim=1)).logits[..., :64]
    nats = F.cross_entropy(logits.mT, ids, reduction="none").sum(dim=1)
    assert_close(ours.log_prob({"video": video}), -nats)
    assert_close(ours({"video": video}).total, nats.mean() / 32)
    assert ours.dims_of({"video": video}) == 32


@torch.no_grad()
def test_samples_of_videogpt_are_decoded_codes_of_gpt2(videogpt, assert_close):
    ours, theirs = videogpt
    made = ours.sample(Condition(batch_size=1, num_frames=4), seed=0, sampling=Sampling(temperature=0.0))
    codes = greedy_codes(theirs, 64, 32)
    assert len(codes.unique()) > 2
    assert_close(made, ours.tokenizer.decode(Tokens(Grid(2, 4, 4), ids=codes)))

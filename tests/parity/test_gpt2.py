"""The transformer over codes without a condition is GPT-2: the same weights, the same logits and samples."""

import pytest
import torch

from filmstrip.models.code_transformer import CodeTransformer
from filmstrip.nn.sampling import Sampling
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


@pytest.fixture
def pair():
    """GPT-2, with one more word that comes before the first code, and ours with its weights."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=CODES + 1,
        n_positions=PLACES,
        n_embd=WIDTH,
        n_layer=3,
        n_head=4,
        activation_function="gelu",
        tie_word_embeddings=False,
        bos_token_id=CODES,
        eos_token_id=None,
        pad_token_id=CODES,
    )
    theirs = transformers.GPT2LMHeadModel(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ours = CodeTransformer(codebook_size=CODES, grid=(PLACES, 1, 1), width=WIDTH, depth=3, num_heads=4).eval()
    # Their matrices are the other way round, and they also have logits for the extra word.
    state = {name: w.T if ".c_" in name and w.ndim == 2 else w for name, w in theirs.state_dict().items()}
    weights = MAP.ours(state)
    ours.load_state_dict(weights | {"head.weight": weights["head.weight"][:CODES]})
    return ours, theirs


def test_logits_agree(pair, assert_close):
    ours, theirs = pair
    ids = torch.randint(0, CODES, (2, PLACES), generator=torch.Generator().manual_seed(1))
    shifted = torch.cat([torch.full((2, 1), CODES), ids[:, :-1]], dim=1)
    with torch.no_grad():
        assert_close(ours(ids), theirs(shifted).logits[..., :CODES])


def test_cached_sampling_agrees(pair):
    ours, theirs = pair
    start = torch.full((1, 1), CODES)
    greedy = theirs.generate(
        start,
        attention_mask=torch.ones_like(start),
        do_sample=False,
        suppress_tokens=[CODES],
        min_new_tokens=PLACES,
        max_new_tokens=PLACES,
    )
    made = ours.generate(torch.zeros(1, PLACES), Sampling(temperature=0.0))
    assert torch.equal(made, greedy[:, 1 : PLACES + 1])

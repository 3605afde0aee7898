"""LaViLa's narrator against the authors' code (``VCLM_HF`` over ``gpt2_gated``), whose outputs are stored."""

from dataclasses import replace

import pytest
import torch
from published import TOLERANCE, recipe_input, stored

from filmstrip import systems
from filmstrip.errors import UserError
from filmstrip.protocols import Grid
from filmstrip.systems.language.lavila.narrator import PoolingConfig, from_published, to_published

IDS = 29


@pytest.fixture(scope="module")
def kept():
    return stored("lavila_narrator")


@pytest.fixture(scope="module", params=[1, 2])
def narrator(request, kept):
    """With a layer before every block, and before every second one."""
    own = systems.find("language.lavila:tiny_narrator").objective
    decoder = replace(own.decoder, vocab_size=IDS, width=32, depth=3, mlp_dim=128)
    encoder = replace(own.encoder, vision=replace(own.encoder.vision, width=20))
    pooling = PoolingConfig(num_queries=6, num_heads=4, head_dim=8)
    model = (
        replace(own, decoder=decoder, encoder=encoder, connector=pooling, gated_every=request.param).build().eval()
    )
    theirs = {n: w for n, w in kept.weights().items() if request.param == 1 or not (".h.1." in n and is_of_gates(n))}
    theirs |= {n.replace("gamma", "beta"): torch.zeros_like(w) for n, w in theirs.items() if n.endswith("gamma")}
    model.load_state_dict(from_published(theirs, model), strict=False)
    return model, theirs, request.param


def is_of_gates(name):
    return "cross" in name or "alpha_" in name


@torch.no_grad()
def test_outputs_agree(kept, narrator):
    model, _, every = narrator
    visual = model.connector(recipe_input("tokens", (2, 11, 20)), Grid(1, 1, 11))
    assert kept.error("pooled", visual) < TOLERANCE
    ids = (recipe_input("ids", (2, 8)).abs() * 1e4).long() % IDS
    layers = model.decoder(ids, before=model.looking(visual), layers=True).layers
    for i, layer in enumerate(layers):
        assert kept.error(f"block{i}_{every}", layer) < TOLERANCE, i
    logits = model.logits(visual, torch.cat([ids, ids[:, :1]], dim=1), torch.tensor([9, 9]))
    assert kept.error(f"logits_{every}", logits) < TOLERANCE


def test_norms_agree(kept, narrator):
    model, _, _ = narrator
    names = {"connector.pool.query_norm", "connector.pool.context_norm", "connector.pool.norm"}
    eps = {name: m.eps for name, m in model.named_modules() if isinstance(getattr(m, "eps", None), float)}
    assert {eps[name] for name in names} | {value for n, value in eps.items() if n.startswith("gated")} == {1e-5}
    assert set(kept.eps.values()) == {1e-5}


def test_key_map_is_invertible(narrator):
    model, theirs, _ = narrator
    back = to_published(model)
    assert set(back) == set(theirs)
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.items())


def test_what_is_no_narrator_is_refused(narrator):
    model, theirs, _ = narrator
    with pytest.raises(UserError, match=r"lacks connector\.pool\.queries"):
        from_published({name: w for name, w in theirs.items() if name != "img_queries"}, model)

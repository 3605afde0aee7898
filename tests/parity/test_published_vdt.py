"""VDT (``generation.vdt``) and the published code, by stored outputs."""

from dataclasses import replace

import pytest
import torch
from einops import rearrange
from published import TOLERANCE, recipe_input, stored

from filmstrip.errors import UserError
from filmstrip.runs.initial_weights import start
from filmstrip.systems.generation import vdt

X, TIME = recipe_input("x", (2, 3, 4, 8, 8)), torch.tensor([3, 850])


def built(**changes):
    config = vdt.tiny().objective
    network = dict(width=48, mlp_width=192, variances=True)
    transformer = replace(config.transformer, **(network | changes))
    return replace(config, num_frames=3, transformer=transformer).build().eval()


@pytest.fixture(scope="module")
def model():
    model = built()
    loaded = model.from_published(stored("vdt").weights())
    assert {f"transformer.{name}" for name in model.transformer.state_dict()} == loaded.keys()
    model.load_state_dict(loaded, strict=False)
    return model


@torch.no_grad()
def test_outputs_agree(model):
    kept, found = stored("vdt"), {}
    hook = model.transformer.blocks[1].register_forward_hook(lambda m, given, out: found.update(block=out))
    output = model.transformer(X, TIME)
    hook.remove()
    assert kept.error("block1", rearrange(found["block"], "b (t n) d -> (b t) n d", t=3)) < TOLERANCE
    assert kept.error("output", output) < TOLERANCE
    assert kept.eps.pop("blocks.0.temporal_norm1") == model.transformer.blocks[0].time_norm.eps
    assert model.predict(X, TIME, None).shape == X.shape


def test_released_files_start_the_transformer(model, tmp_path):
    other, file = built(), tmp_path / "sky.pt"
    fixed = {"pos_embed": torch.zeros(1, 16, 48), "time_embed": torch.zeros(1, 3, 48)}
    torch.save({"ema": stored("vdt").weights() | fixed, "model": {}}, file)
    start(other, file)
    own = model.transformer.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in other.transformer.state_dict().items())
    with pytest.raises(UserError, match=r"sky\.pt: .*no place for: blocks\.1\.attn\.qkv\.weight"):
        start(built(depth=1), file)

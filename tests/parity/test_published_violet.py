"""VIOLET's visual half (``pretraining.violet``) and the published code, by stored outputs."""

import torch
from published import TOLERANCE, recipe_video, stored

from filmstrip import systems
from filmstrip.runs.initial_weights import start
from filmstrip.systems.pretraining.violet import VioletConfig
from filmstrip.weights.released import from_published, published_names, to_published

CONFIG = VioletConfig(
    tokenizer=systems.find("tokenizers.dvae:tiny").objective,
    num_frames=4,
    size=64,
    width=96,
    depths=(1, 1, 2, 1),
    num_heads=(2, 2, 4, 4),
    window=(8, 2, 2),
    patch_size=(2, 4, 4),
    joint_depth=1,
    joint_num_heads=12,
    max_positions=4,
)


def built():
    """The network; its head says 50 codes, as the published one did."""
    objective = CONFIG.build().eval()
    objective.head[3] = torch.nn.Linear(1536, 50)
    return objective


def masked():
    """Every third patch, each clip and each frame from another one on."""
    b, t, i = torch.meshgrid(torch.arange(2), torch.arange(4), torch.arange(4), indexing="ij")
    return ((b + 3 * t + i) % 3 == 0).view(2, 4, 2, 2)


@torch.no_grad()
def test_published_weights_give_the_published_outputs():
    kept, objective = stored("violet"), built()
    objective.load_state_dict(from_published(kept.weights(), objective), strict=False)
    video = recipe_video("video", (2, 4, 3, 64, 64))
    encoder = objective.encoder
    assert kept.error("visual", encoder.visual(video, masked())[0]) < TOLERANCE
    said = encoder(video, masked=masked())
    whole = torch.cat([said.summary[:, :, None], said.tokens.unflatten(1, (4, 4))], dim=2).flatten(1, 2)
    assert kept.error("joint", whole) < TOLERANCE
    assert kept.error("logits", objective.predict(video, masked())) < TOLERANCE
    black = video * ~masked()[:, :, None].repeat_interleave(32, 3).repeat_interleave(32, 4)
    assert kept.error("attended", encoder.attended(black)) < TOLERANCE
    assert not kept.other_eps(torch.nn.ModuleDict({"encoder": encoder}), published_names(objective))


def test_released_weights_start_a_run_and_are_written_back(tmp_path):
    weights, objective, file = stored("violet").weights(), built(), tmp_path / "violet.pt"
    others = {"fc.1.weight": torch.ones(2, 2), "enc_txt.emb_txt.LayerNorm.bias": torch.ones(2)}
    torch.save(weights | others, file)
    start(objective, file)
    back = to_published(objective)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in weights.items())

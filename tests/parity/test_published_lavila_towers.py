"""LaViLa's two towers against the authors' code, whose outputs are stored, and their released files."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from published import TOLERANCE, recipe_video, stored

from filmstrip import systems
from filmstrip.errors import UserError
from filmstrip.runs.initial_weights import start
from filmstrip.weights.released import from_published, load_published, published_names, to_published


@pytest.fixture(scope="module")
def kept():
    return stored("lavila_towers")


def built(num_frames=4):
    own = systems.find("language.lavila:tiny").objective
    sizes = {"width": 32, "depth": 2, "num_heads": 4}
    vision = replace(own.vision, **sizes, num_frames=num_frames, size=24, patch_size=8)
    text = replace(own.text, **sizes, vocab_size=40, max_length=9, norm_eps=1e-5)
    return replace(own, vision=vision, text=text, embed_dim=12).build().eval()


@torch.no_grad()
def test_published_weights_give_the_published_outputs(kept):
    objective = built()
    objective.load_state_dict(from_published(kept.weights(), objective), strict=False)
    video = recipe_video("video", (2, 4, 3, 24, 24))
    said = objective.encoder(video)
    assert kept.error("tokens", torch.cat([said.summary, said.tokens], dim=1)) < TOLERANCE
    assert kept.error("shorter", objective.encoder(video[:, :2]).pooled()) < TOLERANCE
    assert kept.error("video", objective.video_head(said.pooled())) < TOLERANCE
    ids = recipe_video("text", (3, 9)).long() % 38
    ids[:, 6] = 39
    expected = F.normalize(kept.outputs["text"].view(3, 12), dim=1)
    torch.testing.assert_close(objective.encode_text(ids, torch.full((3,), 7)), expected, rtol=1e-4, atol=1e-5)
    assert not kept.other_eps(objective, published_names(objective))


def test_released_files_start_a_run_and_are_written_back(kept, tmp_path):
    objective, state, file = built(), kept.weights(), tmp_path / "clip.pth"
    torch.save({"epoch": 4, "state_dict": {f"module.{name}": value for name, value in state.items()}}, file)
    start(objective, file)
    back = to_published(objective)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())
    longer = built(6)
    start(longer, file)
    positions = longer.encoder.time_pos_embed
    assert torch.equal(positions[:4], state["visual.temporal_embed"][0]) and not positions[4:].any()


def test_the_encoder_of_other_files_is_found(kept, tmp_path):
    """Classifiers and narrators have the same encoder."""
    visual = {name: value for name, value in kept.weights().items() if name.startswith("visual.")}
    classifier = {"fc_cls.weight": torch.ones(5, 32), "fc_cls.bias": torch.ones(5)}
    narrator = {"text_decoder.transformer.wte.weight": torch.ones(4, 4), "img_queries": torch.ones(1)}
    for rest in (classifier, narrator | {"img_attn_pool.norm.gamma": torch.ones(1)}):
        file, objective = tmp_path / "file.pth", built()
        torch.save({"state_dict": visual | rest}, file)
        load_published(file, objective, head=False)
        assert torch.equal(objective.encoder.blocks[1].mlp.fc1.weight, visual["visual.blocks.1.mlp.fc1.weight"])
        with pytest.raises(UserError, match=r"lacks (?:logit_scale|token_embedding\.weight)"):
            start(objective, file)


def test_other_towers_are_refused_by_the_names_of_what_differs(kept, tmp_path):
    state, file = kept.weights(), tmp_path / "clip.pth"
    gated = state | {"visual.blocks.0.alpha_timeattn": torch.zeros(())}
    distil = {name: value for name, value in state.items() if not name.startswith(("transformer.", "token_"))}
    distil["textual.embeddings.LayerNorm.weight"] = torch.ones(32)
    for given, message in (
        (gated, "no place for: visual.blocks.0.alpha_timeattn"),
        (distil, "lacks token_embedding.weight"),
    ):
        torch.save(given, file)
        with pytest.raises(UserError, match=message):
            start(built(), file)

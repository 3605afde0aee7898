"""Frozen in Time and the published code, by stored outputs; its text tower and ``transformers``' DistilBERT."""

import pytest
import torch
import torch.nn.functional as F
from published import TOLERANCE, recipe_input, recipe_video, stored
from transformers import DistilBertConfig, DistilBertModel

from filmstrip.models.text_transformer import TextArchitecture
from filmstrip.objectives.contrastive import softmax_loss
from filmstrip.runs.initial_weights import start
from filmstrip.systems.language.frozen_in_time import FrozenInTimeConfig
from filmstrip.weights.released import from_published, published_names, to_published

TEXT = {"vocab_size": 50, "dim": 24, "hidden_dim": 96, "n_layers": 2, "n_heads": 3, "max_position_embeddings": 9}


def built(num_frames=4):
    text = TextArchitecture(
        vocab_size=50, width=24, depth=2, num_heads=3, max_length=9, norm="post", norm_eps=1e-12, dropout=0.1
    )
    config = FrozenInTimeConfig(
        width=48, depth=2, num_heads=4, num_frames=num_frames, size=32, patch_size=8, text=text, embed_dim=24
    )
    return config.build().eval()


def distilbert():
    torch.manual_seed(0)
    theirs = DistilBertModel(DistilBertConfig(**TEXT)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    return theirs


def whole(theirs):
    """A state as the authors' checkpoints hold it: the recipe's video side, a DistilBERT, and heads."""
    kept = stored("frozen_in_time")
    head = {"txt_proj.1.weight": recipe_input("head", (24, 24)), "txt_proj.1.bias": recipe_input("bias", (24,))}
    return kept.weights() | {f"text_model.{name}": value for name, value in theirs.state_dict().items()} | head


@torch.no_grad()
def test_published_weights_give_the_published_outputs():
    kept, objective, theirs = stored("frozen_in_time"), built(), distilbert()
    objective.load_state_dict(from_published(whole(theirs), objective), strict=False)
    video = recipe_video("video", (3, 4, 3, 32, 32))
    for name, frames in (("tokens", 4), ("shorter", 2), ("still", 1)):
        said = objective.encoder(video[:, :frames])
        assert said.grid == (frames, 4, 4)
        assert kept.error(name, torch.cat([said.summary, said.tokens], dim=1)) < TOLERANCE
    assert kept.error("projected", objective.video_head(objective.encoder(video).pooled())) < TOLERANCE
    texts = F.normalize(recipe_input("vectors", (3, 24)), dim=1)
    loss = softmax_loss(objective.similarity(objective.encode_video(video), texts), torch.eye(3, dtype=torch.bool))
    assert kept.error("loss", 2 * loss) < TOLERANCE  # the sum of both directions there
    names = {f"encoder.{name.removeprefix('encoder.')}": key for name, key in published_names(objective).items()}
    assert not kept.other_eps(torch.nn.ModuleDict({"encoder": objective.encoder}), names)


@torch.no_grad()
def test_the_text_tower_is_a_distilbert():
    objective, theirs = built(), distilbert()
    state = whole(theirs)
    objective.load_state_dict(from_published(state, objective), strict=False)
    ids = torch.randint(1, 50, (4, 9), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([9, 4, 2, 7])
    mask = torch.arange(9) < lengths[:, None]
    first = theirs(input_ids=ids, attention_mask=mask.long()).last_hidden_state[:, 0]
    head = F.linear(first.relu(), state["txt_proj.1.weight"], state["txt_proj.1.bias"])
    torch.testing.assert_close(objective.encode_text(ids, lengths), F.normalize(head, dim=1), rtol=1e-5, atol=1e-6)


def test_released_weights_start_a_run_and_are_written_back(tmp_path):
    objective, state, file = built(), whole(distilbert()), tmp_path / "frozen.pth"
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, file)
    start(objective, file)
    back = to_published(objective)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())


@pytest.mark.parametrize("num_frames", [2, 6])
def test_released_weights_start_clips_of_another_length(tmp_path, num_frames):
    state, file, objective = whole(distilbert()), tmp_path / "frozen.pth", built(num_frames)
    torch.save(state, file)
    start(objective, file)
    theirs, ours = state["video_model.temporal_embed"][0], objective.encoder.time_pos_embed
    assert torch.equal(ours[:4], theirs[:num_frames]) and not ours[4:].any()

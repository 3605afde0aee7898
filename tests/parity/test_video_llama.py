"""Video-LLaMA's queries against transformers' Q-Formers, put together as the authors do."""

from dataclasses import replace

import pytest
import torch
from blip import BRIDGE, QUERIES, randomise

from filmstrip.models.query_transformer import BLIP2, QueryTransformerConfig, fused
from filmstrip.protocols import Grid
from filmstrip.systems.language.video_llama import VideoQueriesConfig

transformers = pytest.importorskip("transformers")

CLIP = QueryTransformerConfig(num_queries=3, width=24, depth=2, num_heads=4, mlp_dim=40)


def theirs(**changes):
    return randomise(transformers.Blip2QFormerModel(transformers.Blip2QFormerConfig(**QUERIES | changes)))


@torch.no_grad()
def test_tokens_of_a_clip_agree(assert_close):
    torch.manual_seed(0)
    of_frames, of_clip = theirs(), theirs(num_hidden_layers=2, cross_attention_frequency=1, encoder_hidden_size=24)
    config = VideoQueriesConfig(frames=replace(BRIDGE, vocab_size=None), clip=CLIP, max_frames=6)
    ours = randomise(config.build(20, 16))
    for bridge, model in ((ours.reader.bridge, of_frames), (ours.clip, of_clip)):
        loaded = bridge.load_state_dict(BLIP2.ours(fused(model.state_dict())), strict=False)
        assert loaded.missing_keys == ["queries"] and not loaded.unexpected_keys
    tokens = torch.randn(2, 4 * 9, 20)
    seen = ours.reader.visual_norm(tokens).view(8, 9, 20)
    frames = of_frames(ours.reader.bridge.queries.expand(8, -1, -1), encoder_hidden_states=seen).last_hidden_state
    frames = frames.view(2, 4, 5, 24) + ours.time_pos_embed[:4, None]
    queries = ours.clip.queries.expand(2, -1, -1)
    clip = of_clip(queries, encoder_hidden_states=frames.flatten(1, 2)).last_hidden_state
    assert_close(ours(tokens, Grid(4, 3, 3)), ours.project(clip))
    assert ours.num_tokens(Grid(4, 3, 3)) == 3

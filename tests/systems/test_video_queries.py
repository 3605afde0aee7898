import pytest
import torch

from filmstrip import systems
from filmstrip.models.query_transformer import QueryTransformerConfig
from filmstrip.protocols import Grid
from filmstrip.systems.language.video_llama import VideoQueriesConfig

SMALL = QueryTransformerConfig(num_queries=2, width=16, depth=1, num_heads=2, mlp_dim=32)


@pytest.fixture
def queries():
    torch.manual_seed(0)
    connector = VideoQueriesConfig(frames=SMALL, clip=SMALL, max_frames=4).build(12, 8)
    for parameter in connector.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return connector


def test_queries_of_frames_are_frozen_and_stay_in_evaluation(queries):
    queries.train()
    assert not queries.reader.training and queries.clip.training
    queries(torch.randn(1, 3 * 5, 12), Grid(3, 1, 5)).sum().backward()
    assert all(parameter.grad is None for parameter in queries.reader.parameters())
    assert queries.time_pos_embed.grad[:3].any() and not queries.time_pos_embed.grad[3].any()


@torch.no_grad()
def test_the_order_of_frames_matters_by_their_places_in_time_alone(queries):
    queries.eval()
    frames = torch.randn(1, 3, 5, 12)
    there, back = (queries(x.flatten(1, 2), Grid(3, 1, 5)) for x in (frames, frames.flip(1)))
    assert not torch.allclose(there, back, atol=1e-4)
    queries.time_pos_embed.zero_()
    there, back = (queries(x.flatten(1, 2), Grid(3, 1, 5)) for x in (frames, frames.flip(1)))
    torch.testing.assert_close(there, back, rtol=1e-4, atol=1e-5)


def test_more_frames_than_places_are_refused(queries):
    with pytest.raises(ValueError, match="5 frames exceed the 4 places"):
        queries(torch.randn(1, 5 * 2, 12), Grid(5, 1, 2))


@pytest.mark.parametrize(
    "address", ["language.blip2:stage2_vit_g_vicuna_7b", "language.video_llama:vicuna_7b_stage1"]
)
def test_encoder_and_language_model_are_frozen(address):
    with torch.device("meta"):
        model = systems.find(address).objective.build()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"connector"}
    model.train()
    assert not model.encoder.training and not model.decoder.training and model.connector.training

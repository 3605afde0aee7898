"""What a transformer over the clips of a procedure sees, and what it does not."""

import pytest
import torch

from filmstrip.systems.procedures.transformer import ProcedureTransformer, StepTransformerConfig

CONFIG = StepTransformerConfig(feature_width=8, num_tokens=2, width=16, depth=2, num_heads=4)
SEEN = torch.tensor([[True, False, False, True, False]])
TARGET = torch.tensor([[False, True, True, False, False]])


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ProcedureTransformer(CONFIG).eval()


@pytest.fixture
def features():
    return torch.randn(1, 5, 2, 8, generator=torch.Generator().manual_seed(0))


def test_features_of_hidden_places_and_of_padding_do_not_matter(network, features):
    other = features.clone()
    other[:, [1, 2, 4]] += 1
    there = network(features, SEEN, TARGET)
    assert there.shape == (1, 5, 2, 16)
    assert torch.equal(there, network(other, SEEN, TARGET))


def test_seen_clips_reach_every_place(network, features):
    other = features.clone()
    other[:, 3, 1] += 1
    change = (network(other, SEEN, TARGET) - network(features, SEEN, TARGET)).abs().amax(dim=-1)
    assert (change[:, :4] > 1e-5).all()


def test_padding_changes_nothing(network, features):
    short = network(features[:, :4], SEEN[:, :4], TARGET[:, :4])
    torch.testing.assert_close(network(features, SEEN, TARGET)[:, :4], short)


def test_places_and_tokens_are_told_apart(network, features):
    there = network(features, SEEN, TARGET)
    assert (there[0, 1] - there[0, 2]).abs().max() > 1e-3
    assert (there[0, 1, 0] - there[0, 1, 1]).abs().max() > 1e-3


def test_another_number_of_tokens_is_refused(network, features):
    with pytest.raises(ValueError, match="expected 2 tokens in a clip, got 1"):
        network(features[:, :, :1], SEEN, TARGET)

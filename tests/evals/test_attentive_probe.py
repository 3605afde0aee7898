import pytest
import torch
from in_memory import MemorySource, Video
from torch import nn

from filmstrip.evals.attentive_probe import AttentiveProbe
from filmstrip.protocols import Features, Grid, Objective


def needles(num, seed, num_tokens=24, width=32):
    """Noise tokens with one token, anywhere, that tells the class by its direction: the mean hardly shows it."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % 2
    tokens = torch.randn(num, num_tokens, width, generator=generator)
    place = torch.randint(0, num_tokens, (num,), generator=generator)
    sign = 1.0 - 2.0 * labels
    tokens[torch.arange(num), place] = 0.0
    tokens[torch.arange(num), place, 0] = 5.0
    tokens[torch.arange(num), place, 1] = 5.0 * sign
    return tokens, labels


@pytest.mark.parametrize("pooling", ["block", "plain"])
def test_attends_to_the_one_token_that_tells(pooling):
    train, train_labels = needles(320, seed=0)
    test, test_labels = needles(80, seed=1)
    probe = AttentiveProbe(epochs=12, pooling=pooling)
    cpu = torch.device("cpu")
    before = torch.random.get_rng_state()
    top1 = probe.top1(train, train_labels, test, test_labels, 2, cpu)
    assert top1 > 0.9
    assert torch.equal(before, torch.random.get_rng_state())
    assert top1 == probe.top1(train, train_labels, test, test_labels, 2, cpu)
    shuffled = train_labels[torch.randperm(320, generator=torch.Generator().manual_seed(2))]
    assert probe.top1(train, shuffled, test, test_labels, 2, cpu) < 0.75


class Parity(nn.Module):
    """The first layer is blind; in the second, one of two tokens tells whether a video's value is odd."""

    width = 4

    def __call__(self, video, layers=False):
        odd = video[:, 0, 0, 0, 0].float() % 2
        blind = torch.ones(len(odd), 2, 4)
        seen = blind.clone()
        seen[:, 1] = torch.stack([odd, 1 - odd, odd, odd], dim=1)
        return Features(seen, Grid(2, 1, 1), (blind, seen) if layers else ())


def test_every_layer_through_the_protocol(subject_of):
    objective = Objective()
    objective.encoder = Parity()
    videos = [Video(str(i), i % 2, (i,)) for i in range(60)]
    source = MemorySource("ab", train=videos[:40], test=videos[40:])
    found = dict(AttentiveProbe(epochs=30, lr=1e-2)(subject_of(objective, source)))
    assert found["attentive/layer_0/top1"] == 0.5
    assert found["attentive/layer_1/top1"] == 1.0
    assert (found["attentive/best_top1"], found["attentive/best_layer"]) == (1.0, 1.0)


def test_a_layer_is_chosen_without_the_evaluated_videos(subject_of):
    objective = Objective()
    objective.encoder = Parity()
    train = [Video(str(i), i % 2, (i,)) for i in range(40)]
    # Half of the evaluated videos are labelled wrongly: of these, no layer is better than another.
    test = [Video(str(i), (i + i // 2) % 2, (i,)) for i in range(40, 60)]
    source = MemorySource("ab", train=train, test=test)
    found = dict(AttentiveProbe(epochs=30, lr=1e-2, choose_layer=True)(subject_of(objective, source)))
    assert (found["attentive/chosen_layer"], found["attentive/chosen_top1"]) == (1.0, 0.5)
    assert found["attentive/best_layer"] == 0.0

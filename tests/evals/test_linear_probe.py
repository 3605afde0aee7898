from dataclasses import replace

import numpy as np
import pytest
import torch
from in_memory import MemorySource, Video
from scipy.optimize import minimize
from torch import nn

from filmstrip.evals.linear_probe import LinearProbe, fit_logistic, hold_out
from filmstrip.protocols import Features, Grid, Objective


class TwoLayers(nn.Module):
    """Layer 0 is noise of a video's value, layer 1 tells its parity, the output is zero."""

    width = 3

    def __call__(self, video, layers=False):
        value = video[:, 0, 0, 0, 0].float()
        parity = value % 2
        noise = torch.stack([torch.sin(value * k * 12.9898) for k in (1, 2, 3)], dim=1)
        clean = torch.stack([parity, 100 + 0.01 * parity, torch.zeros_like(parity)], dim=1)
        tokens = [torch.stack([x - 1, x + 1], dim=1) for x in (noise, clean)]
        return Features(torch.zeros_like(tokens[0]), Grid(2, 1, 1), tuple(tokens) if layers else ())


class Holder(Objective):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder


def parity_source(train=60, test=40):
    videos = [Video(str(i), i % 2, (i,)) for i in range(train + test)]
    return MemorySource("ab", train=videos[:train], test=videos[train:])


def test_finds_the_separable_layer(subject_of):
    found = dict(LinearProbe()(subject_of(Holder(TwoLayers()), parity_source())))
    assert found["linear/layer_1/top1"] == 1.0
    assert found["linear/layer_0/top1"] < 0.75
    assert found["linear/best_top1"] == 1.0
    assert found["linear/best_layer"] == 1.0
    assert found == dict(LinearProbe()(subject_of(Holder(TwoLayers()), parity_source())))


def test_the_predictions_of_the_best_layer_are_handed_on(subject_of):
    kept = []
    subject = replace(subject_of(Holder(TwoLayers()), parity_source()), keep=kept.append)
    found = dict(LinearProbe()(subject))
    (predictions,) = kept
    assert predictions.probe == "linear" and predictions.accuracy() == found["linear/best_top1"] == 1.0
    assert predictions.names == tuple(str(i) for i in range(60, 100))
    assert torch.allclose(predictions.probabilities.sum(dim=1), torch.ones(40))


def test_logistic_regression_agrees_with_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)), rng.integers(0, 3, size=40)
    penalty = 0.03

    def loss(flat):
        weight, bias = flat[:15].reshape(5, 3), flat[15:]
        logits = x @ weight + bias
        log_sum = np.log(np.exp(logits).sum(axis=1))
        return (log_sum - logits[np.arange(40), y]).mean() + penalty / 2 * (weight**2).sum()

    expected = minimize(loss, np.zeros(18), method="BFGS", options={"gtol": 1e-9})
    weight, bias = fit_logistic(torch.tensor(x), torch.tensor(y), 3, penalty)
    np.testing.assert_allclose(weight.numpy(), expected.x[:15].reshape(5, 3), atol=1e-4)
    np.testing.assert_allclose((bias - bias.mean()).numpy(), expected.x[15:] - expected.x[15:].mean(), atol=1e-4)


def test_standardises_features_and_survives_constant_ones():
    """The feature that tells is a million times smaller than one that is noise; another never varies."""
    labels = torch.arange(40) % 2
    generator = torch.Generator().manual_seed(0)

    def features():
        noise = 1e3 * torch.randn(40, generator=generator)
        return torch.stack([1e-3 * labels, noise, torch.full((40,), 7.0)], dim=1)

    assert LinearProbe().top1(features(), labels, features(), labels, 2) == 1.0


def test_the_penalty_is_chosen_on_held_out_videos():
    """Many noise features and few videos: only a strong penalty generalises."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(50) % 2
    features = torch.randn(50, 400, generator=generator)
    features[:, 0] += 2.0 * labels
    probe = LinearProbe(penalties=(1e-6, 3.0))
    assert probe._choose_penalty(features, labels, 2) == 3.0


def test_holds_out_a_fifth_of_each_class_but_no_rare_class():
    labels = torch.tensor([0] * 10 + [1] * 3 + [2] * 5)
    assert hold_out(labels).nonzero().flatten().tolist() == [4, 9, 17]


@pytest.mark.parametrize("clips", [1, 2])
def test_clips_are_averaged(subject_of, clips):
    """A video's second clip says nothing: averaging halves the separation but keeps it."""
    videos = [Video(str(i), i % 2, (i, 200)) for i in range(40)]
    source = MemorySource("ab", train=videos[:30], test=videos[30:])
    found = dict(LinearProbe(num_clips=clips)(subject_of(Holder(TwoLayers()), source)))
    assert found["linear/layer_1/top1"] == 1.0

import pytest
import torch

from filmstrip.nn.gaussian import Gaussian


def test_divergence_equals_torch_distributions():
    moments = torch.randn(4, 3, 10)
    mean, log_variance = moments.chunk(2, dim=-1)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).mean()
    out = Gaussian(5, kl_weight=0.1)(moments)
    torch.testing.assert_close(out.loss, 0.1 * expected)
    torch.testing.assert_close(out.metrics["kl"], expected)


def test_samples_in_training_and_the_mean_afterwards():
    torch.manual_seed(0)
    bottleneck = Gaussian(1, kl_weight=1.0)
    moments = torch.tensor([2.0, 2 * torch.tensor(0.5).log().item()]).expand(20_000, 2)
    samples = bottleneck.train()(moments).latents
    assert samples.mean().item() == pytest.approx(2, abs=0.02)
    assert samples.std().item() == pytest.approx(0.5, abs=0.02)
    assert (bottleneck.eval()(moments).latents == 2).all()

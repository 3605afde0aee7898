"""The bottleneck of a variational autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor

from filmstrip.nn.quantise import Bottleneck, Quantised


class Gaussian(Bottleneck):
    """A diagonal Gaussian: takes means and log variances, returns a sample (the mean outside training).

    The loss is ``kl_weight`` times the divergence from a standard normal, in nats, averaged over channels.
    Kingma & Welling 2014; log variances are clamped to -30..20, as in latent diffusion (Rombach et al. 2022).
    """

    def __init__(self, latent_dim: int, *, kl_weight: float) -> None:
        super().__init__()
        self.input_dim, self.latent_dim = 2 * latent_dim, latent_dim
        self.kl_weight = kl_weight

    def forward(self, latents: Tensor) -> Quantised:
        """From ``B ... 2D`` moments to ``B ... D``; ``kl`` is logged unweighted."""
        mean, log_variance = latents.float().chunk(2, dim=-1)
        log_variance = log_variance.clamp(-30, 20)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        sample = mean + (0.5 * log_variance).exp() * torch.randn_like(mean) if self.training else mean
        return Quantised(sample.to(latents.dtype), None, self.kl_weight * divergence, {"kl": divergence.detach()})

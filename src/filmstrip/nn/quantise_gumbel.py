"""Gumbel-softmax quantisation: a relaxed choice of codes whose temperature is annealed in training."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.nn.quantise import Quantised, Quantiser, usage


class GumbelQuantiser(Quantiser):
    """Latents are logits over codes; training mixes codes by a Gumbel-softmax, inference takes the most probable.

    Ramesh et al. 2021 (DALL-E): the temperature falls from 1 to ``final_temperature`` on a cosine over
    ``anneal_steps``; the loss is the divergence from a uniform prior, in nats per latent, with a weight that rises to
    ``kl_weight`` over ``warmup_steps``.
    """

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        *,
        kl_weight: float = 6.6,
        warmup_steps: int = 5_000,
        final_temperature: float = 1 / 16,
        anneal_steps: int = 150_000,
    ) -> None:
        super().__init__()
        self.codebook_size = self.input_dim = codebook_size
        self.latent_dim = dim
        self.kl_weight = kl_weight
        self.warmup_steps = warmup_steps
        self.final_temperature = final_temperature
        self.anneal_steps = anneal_steps
        self.codes = nn.Parameter(torch.randn(codebook_size, dim) / math.sqrt(codebook_size))
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, latents: Tensor) -> Quantised:
        """Mix codes by logits ``B ... K``: latents ``B ... D``. Ids are the most probable codes."""
        logits = latents.float()
        ids = logits.argmax(dim=-1)
        if self.training:
            choice = F.gumbel_softmax(logits, tau=self.temperature)
        else:
            choice = F.one_hot(ids, self.codebook_size).to(logits.dtype)
        log_p = logits.log_softmax(dim=-1)
        divergence = (log_p.exp() * log_p).sum(dim=-1).mean() + math.log(self.codebook_size)
        metrics = {**usage(ids.flatten(), self.codebook_size), "temperature": self.temperature.clone()}
        return Quantised((choice @ self.codes).to(latents.dtype), ids, self.weight * divergence, metrics)

    def decode(self, ids: Tensor) -> Tensor:
        """The codes of ``B ...`` ids: ``B ... D``."""
        return F.embedding(ids, self.codes)

    def after_step(self, step: int) -> None:
        """Update the temperature and the weight of the divergence."""
        progress = min(step / self.anneal_steps, 1.0)
        cosine = (1 + math.cos(math.pi * progress)) / 2
        self.temperature.fill_(self.final_temperature + (1 - self.final_temperature) * cosine)
        self.weight.fill_(self.kl_weight * min(step / self.warmup_steps, 1.0))

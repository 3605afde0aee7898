"""Vector quantisers: the nearest code of a codebook, learnt by gradient or as a moving average.

Every quantiser takes latents ``B ... D`` and returns :class:`Quantised`; the others are in
:mod:`filmstrip.nn.quantise_free` (no codebook to learn) and :mod:`filmstrip.nn.quantise_gumbel`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.errors import UserError

Reduce = Callable[[Tensor], Tensor]
"""A collective operation on one tensor of each process, such as their sum."""


@dataclass
class Quantised:
    """The output of a bottleneck; gradients pass straight through to its input."""

    latents: Tensor
    """``B ... D``, the dtype of the input."""
    ids: Tensor | None
    """``B ...`` int64; ``B ... G`` when there are several codebooks; none where the latents are continuous."""
    loss: Tensor
    """Loss term of the bottleneck, a scalar to minimise."""
    metrics: dict[str, Tensor]
    """Metrics of quantisers: ``perplexity`` of the batch's ids, and ``used``, the share of codes in use."""


class Bottleneck(nn.Module):
    """A module between an encoder and a decoder.

    ``input_dim`` is the number of input channels, ``latent_dim`` that of output channels. ``after_step`` runs after
    each optimiser step, counted from 1. Without ids there is no ``codebook_size``.
    """

    input_dim: int
    latent_dim: int
    codebook_size: int | None = None
    num_codebooks: int = 1

    def forward(self, latents: Tensor) -> Quantised:
        """Pass latents ``B ... D`` through the bottleneck."""
        raise TypeError(f"{type(self).__name__} does not define forward(latents)")

    def after_step(self, step: int) -> None:
        """Update codes or schedules."""


class Quantiser(Bottleneck):
    """A bottleneck with ``num_codebooks`` codebooks of ``codebook_size`` codes each."""

    codebook_size: int

    def decode(self, ids: Tensor) -> Tensor:
        """The latents ``B ... D`` of ``ids``; the inverse of the ids that :meth:`forward` returns."""
        raise TypeError(f"{type(self).__name__} does not define decode(ids)")


def straight_through(latents: Tensor, quantised: Tensor) -> Tensor:
    """The value of ``quantised`` with the gradient of ``latents`` (Bengio et al. 2013)."""
    return latents + (quantised - latents).detach()


@torch.no_grad()
def usage(ids: Tensor, codebook_size: int, counted: Tensor | None = None) -> dict[str, Tensor]:
    """Perplexity of the ids (``N``, or ``N G``: averaged over codebooks), and the share of codes that occur.

    Only ids marked by ``counted`` (``N``, bool) are included; by default all.
    """
    ids = ids.reshape(len(ids), -1)
    count = _count(ids, codebook_size, counted)
    share = count / count.sum(dim=1, keepdim=True)
    entropy = -torch.xlogy(share, share).sum(dim=1)
    return {"perplexity": entropy.exp().mean(), "used": (share > 0).float().mean()}


def nearest(latents: Tensor, codes: Tensor) -> Tensor:
    """The code (of ``G K D``) at minimum Euclidean distance from each latent (``N G D``): ``N G`` int64."""
    # argmin |z - c|^2 = argmax (z.c - |c|^2 / 2): the distance matrix itself is never needed
    half_norm = codes.square().sum(dim=2).div(2)
    scores = torch.baddbmm(-half_norm[:, None, :], rearrange(latents, "n g d -> g n d"), codes.mT)
    return rearrange(scores.argmax(dim=2), "g n -> n g")


def _count(ids: Tensor, codebook_size: int, counted: Tensor | None = None) -> Tensor:
    """Occurrences of each code in ``N G`` ids, restricted to ``counted`` (``N``, bool): ``G K`` float32."""
    counts = torch.zeros(ids.shape[1], codebook_size, device=ids.device)
    ones = torch.ones_like(ids.T, dtype=counts.dtype)
    return counts.scatter_add_(1, ids.T, ones if counted is None else ones * counted)


def _alone(tensor: Tensor) -> Tensor:
    return tensor


class _Lookup(Quantiser):
    """Replaces latents by the nearest code; ``codes`` is ``G K D/G``, one codebook for each slice of the channels."""

    codes: Tensor

    def __init__(self, codebook_size: int, dim: int, *, num_codebooks: int, unit: bool, commitment: float) -> None:
        super().__init__()
        if dim % num_codebooks:
            raise UserError(f"{num_codebooks} codebooks cannot split latents of {dim} channels evenly")
        self.codebook_size = codebook_size
        self.num_codebooks = num_codebooks
        self.input_dim = self.latent_dim = dim
        self.unit = unit
        self.commitment = commitment

    def _initial_codes(self) -> Tensor:
        codes = torch.empty(self.num_codebooks, self.codebook_size, self.latent_dim // self.num_codebooks)
        codes.uniform_(-1 / self.codebook_size, 1 / self.codebook_size)
        return F.normalize(codes, dim=2) if self.unit else codes

    def _effective_codes(self) -> Tensor:
        return F.normalize(self.codes, dim=2) if self.unit else self.codes

    def forward(self, latents: Tensor) -> Quantised:
        """Quantise ``B ... D``, in float32 whatever the dtype of the latents."""
        with torch.autocast(latents.device.type, enabled=False):
            slices = latents.float().reshape(-1, self.num_codebooks, self.latent_dim // self.num_codebooks)
            if self.unit:
                slices = F.normalize(slices, dim=2)
            codes = self._effective_codes()
            ids = nearest(slices.detach(), codes.detach())
            chosen = self._look_up(codes, ids)
            loss = self._loss(slices, chosen)
            if self.training and torch.is_grad_enabled():
                self._observe(slices.detach(), ids)
            quantised = straight_through(slices, chosen).reshape(latents.shape)
        metrics = usage(ids, self.codebook_size)
        return Quantised(quantised.to(latents.dtype), self._shape_ids(ids, latents), loss, metrics)

    def decode(self, ids: Tensor) -> Tensor:
        """The codes of ``B ...`` ids (``B ... G`` of several codebooks): ``B ... D``."""
        flat = ids.reshape(-1, self.num_codebooks)
        leading = ids.shape if self.num_codebooks == 1 else ids.shape[:-1]
        return self._look_up(self._effective_codes(), flat).reshape(*leading, self.latent_dim)

    def _look_up(self, codes: Tensor, ids: Tensor) -> Tensor:
        offset = self.codebook_size * torch.arange(self.num_codebooks, device=ids.device)
        return F.embedding(ids + offset, codes.flatten(0, 1))

    def _shape_ids(self, ids: Tensor, latents: Tensor) -> Tensor:
        leading = latents.shape[:-1]
        return ids.reshape(leading if self.num_codebooks == 1 else (*leading, self.num_codebooks))

    def _loss(self, slices: Tensor, chosen: Tensor) -> Tensor:
        """The commitment loss."""
        return self.commitment * F.mse_loss(slices, chosen.detach())

    def _observe(self, slices: Tensor, ids: Tensor) -> None:
        """Collect statistics for updating the codes; called in training only."""


class VectorQuantiser(_Lookup):
    """Codes that are parameters, pulled towards their latents by the codebook loss (van den Oord et al. 2017).

    The loss is ``|sg(z) - e|^2 + commitment * |z - sg(e)|^2``, as means over channels. ``unit`` puts latents and
    codes on the unit sphere (Yu et al. 2021, as in TECO), which keeps more of the codebook in use.
    """

    def __init__(
        self, codebook_size: int, dim: int, *, num_codebooks: int = 1, unit: bool = False, commitment: float = 0.25
    ) -> None:
        super().__init__(codebook_size, dim, num_codebooks=num_codebooks, unit=unit, commitment=commitment)
        self.codes = nn.Parameter(self._initial_codes())

    def _loss(self, slices: Tensor, chosen: Tensor) -> Tensor:
        return F.mse_loss(chosen, slices.detach()) + super()._loss(slices, chosen)


class EMAQuantiser(_Lookup):
    """Codes that are moving averages of the latents assigned to them (van den Oord et al. 2017, appendix A.1).

    Codes are initialised to random latents of the first step. A code whose moving average of assigned latents per
    step falls below ``restart_below`` is replaced by a random latent of the current step (Dhariwal et al. 2020); zero
    disables restarts. Statistics are collected in training only, with gradients enabled; codes are updated in
    :meth:`after_step`, so that all micro-batches of a step use the same ones. Processes share one codebook once they
    :meth:`share_statistics`.
    """

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        *,
        num_codebooks: int = 1,
        unit: bool = False,
        commitment: float = 0.25,
        decay: float = 0.99,
        restart_below: float = 1.0,
    ) -> None:
        super().__init__(codebook_size, dim, num_codebooks=num_codebooks, unit=unit, commitment=commitment)
        self.sum_all: Reduce = _alone
        self.from_first: Reduce = _alone
        self.decay = decay
        self.restart_below = restart_below
        codes = self._initial_codes()
        self.register_buffer("codes", codes)
        self.register_buffer("size", torch.zeros(codes.shape[:2]))
        self.register_buffer("total", torch.zeros_like(codes))
        # of the current step; the same in every process
        self.register_buffer("step_size", torch.zeros(codes.shape[:2]), persistent=False)
        self.register_buffer("step_total", torch.zeros_like(codes), persistent=False)
        self.register_buffer("candidates", torch.zeros_like(codes), persistent=False)

    def share_statistics(self, *, sum_all: Reduce, from_first: Reduce) -> None:
        """Use all processes' latents, by an all-reduce and a broadcast from the first process."""
        self.sum_all, self.from_first = sum_all, from_first

    @torch.no_grad()
    def _observe(self, slices: Tensor, ids: Tensor) -> None:
        """Add a batch to the statistics of this step, and sample the latents that dead codes restart from."""
        books, per_code = self.num_codebooks, self.step_total.flatten(0, 1)
        row = ids + self.codebook_size * torch.arange(books, device=ids.device)
        total = torch.zeros_like(per_code).index_add_(0, row.flatten(), slices.flatten(0, 1))
        self.step_total += self.sum_all(total.unflatten(0, (books, -1)))
        self.step_size += self.sum_all(_count(ids, self.codebook_size))
        drawn = torch.randint(len(slices), (self.codebook_size,), device=slices.device)
        self.candidates.copy_(self.from_first(rearrange(slices[drawn], "k g d -> g k d").contiguous()))

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Set every code to the moving average of its latents, and restart dead codes."""
        fresh = self.size.sum() == 0
        self.size.lerp_(self.step_size, 1 - self.decay)
        self.total.lerp_(self.step_total, 1 - self.decay)
        replaced = fresh | (self.size < self.restart_below)
        self.size.masked_fill_(replaced, 1.0)
        self.total.copy_(torch.where(replaced[..., None], self.candidates, self.total))
        alive = self.size > torch.finfo(self.size.dtype).tiny  # without restarts, an unused code decays to 0 / 0
        mean = self.total / torch.where(alive, self.size, 1.0)[..., None]
        self.codes.copy_(torch.where(alive[..., None], mean, self.codes))
        self.codes.copy_(self._effective_codes())
        self.step_size.zero_()
        self.step_total.zero_()

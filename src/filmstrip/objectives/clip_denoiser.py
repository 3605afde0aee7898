"""Making the embeddings of unseen clips out of noise, step by step, in a way that can be learnt through."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from filmstrip.errors import UserError
from filmstrip.models.vedit import AtTime, VEDiT
from filmstrip.nn.patches import take
from filmstrip.nn.sampling import guided
from filmstrip.nn.two_branch import Placement
from filmstrip.randomness import normal

_SALT = 0x7ED1


class Predicted(NamedTuple):
    """Clips that were made for a batch of windows."""

    clips: Tensor
    """``B T N D``."""
    places: Tensor
    """Where they belong, ``B T`` int64."""
    used: Tensor
    """Which of them were asked for, ``B T``; the others mean nothing."""


def flow_schedule(steps: int, shift: float = 1.0) -> tuple[float, ...]:
    """Noise levels of ``steps`` Euler steps and the last, zero: those of ``FlowMatchEulerDiscreteScheduler``.

    Esser et al. 2024. From 1 down to 0.001, evenly for a shift of 1: the last step of several is a short one.

    Raises:
        UserError: fewer than one step, or the ``diffusers`` package is not there.
    """
    if steps < 1:
        raise UserError(f"denoising takes one step or more, not {steps}")
    try:
        from diffusers import FlowMatchEulerDiscreteScheduler
    except ImportError:
        raise UserError("flow matching needs diffusers: pip install 'filmstrip[diffusion]'") from None
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    return tuple(scheduler.sigmas.tolist())


class ClipDenoiser(nn.Module):
    """Clips from noise by the velocity of a network, with classifier-free guidance, also in training.

    The guided velocity is ``guidance`` times as far from the one without seen clips as the one with them; without
    them the seen branch does not run. ``recompute`` keeps only the clips between the steps for the backward pass,
    and runs each step again there.
    """

    def __init__(
        self,
        network: VEDiT,
        *,
        steps: int = 24,
        guidance: float = 7.0,
        shift: float = 1.0,
        recompute: bool = True,
        num_targets: int | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.guidance = guidance
        self.levels = flow_schedule(steps, shift)
        self.recompute = recompute
        self.num_targets = num_targets

    def predict(self, features: Tensor, seen: Tensor, target: Tensor, seeds: Tensor) -> Predicted:
        """The clips at ``target`` (``B S``), from ``features`` (``B S N D``) at ``seen``, and noise from the seeds.

        With ``num_targets`` no window has more targets, and at most the other places are seen: the branches then
        hold no more clips than that. A window that does not keep to it stops the program.
        """
        size = features.shape[1]
        most = size if self.num_targets is None else self.num_targets
        places, used = _choose(target, most)
        seen_places, seen_used = _choose(seen, size if self.num_targets is None else size - most)
        noise = normal(seeds, places.shape[1] * features.shape[2] * features.shape[3], _SALT)
        clips = self(
            noise.view(*places.shape, *features.shape[2:]),
            take(features, seen_places),
            self.network.place(places, seen_places, used, seen_used, features.shape[2]),
        )
        return Predicted(clips, places, used)

    def forward(self, noise: Tensor, seen: Tensor, placement: Placement) -> Tensor:
        """Clips ``B T N D`` made of noise of that shape, given the clips ``seen`` (``B M N D``)."""
        tokens = self.network.embed(seen) if seen.shape[1] else None
        levels = torch.tensor(self.levels, device=noise.device)
        clips = noise
        for time, step in zip(self.network.at_times(1000 * levels[:-1]), levels.diff()):
            if self.recompute and torch.is_grad_enabled():
                velocity = checkpoint(
                    self.velocity, clips, tokens, time, placement, use_reentrant=False, preserve_rng_state=False
                )
            else:
                velocity = self.velocity(clips, tokens, time, placement)
            clips = clips + step * velocity
        return clips

    def velocity(self, clips: Tensor, seen: Tensor | None, time: AtTime, placement: Placement) -> Tensor:
        """The guided velocity ``B T N D``, float32; ``seen`` are the network's tokens of the seen clips."""
        given = self.network(clips, seen, time, placement).float()
        if seen is None or self.guidance == 1:
            return given
        return guided(given, self.network(clips, None, time, placement).float(), self.guidance)


def _choose(mask: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The first places that a mask ``B S`` marks, ``B most`` in order of time, then others; and which are marked."""
    torch._assert_async((mask.sum(dim=1) <= most).all(), f"a window has more than {most} such places")
    places = (~mask).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    return places, mask.gather(1, places)

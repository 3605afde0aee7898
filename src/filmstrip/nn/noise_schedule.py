"""Noise schedules of diffusion and of flow matching: how much of the signal is left at each time."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

BetaSchedule = Literal["linear", "scaled_linear", "cosine"]
"""Growth of the noise from one time to the next: its variance (Ho et al. 2020), the root of its variance (Rombach et
al. 2022), or the signal left along a squared cosine (Nichol and Dhariwal 2021)."""


def kept_signal(
    steps: int, *, schedule: BetaSchedule, start: float, end: float, zero_terminal_snr: bool = False
) -> Tensor:
    """Share of the signal's variance that is left at each time 0..``steps - 1``, float64.

    The rest of a variance of one is noise. ``start`` and ``end`` are the noise added at the first and last time
    (not of a cosine). ``zero_terminal_snr`` shifts and rescales the roots so that the last time holds noise alone and
    the first one stays as it is (Lin et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed",
    algorithm 1).
    """
    if schedule == "cosine":
        place = torch.arange(steps + 1, dtype=torch.float64) / steps
        curve = torch.cos((place + 0.008) / 1.008 * torch.pi / 2) ** 2
        betas = (1 - curve[1:] / curve[:-1]).clamp(max=0.999)
    elif schedule == "linear":
        betas = torch.linspace(start, end, steps, dtype=torch.float64)
    else:
        betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)
    if zero_terminal_snr:
        root = kept.sqrt()
        kept = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return kept


def flow_levels(steps: int, shift: float = 1.0) -> tuple[float, ...]:
    """Noise levels of ``steps`` Euler steps of flow matching and the last, zero (Esser et al. 2024).

    From 1 down to 0.001, evenly for a ``shift`` of 1, so that the last step of several is a short one; above 1, more
    steps have much noise. As ``FlowMatchEulerDiscreteScheduler`` of ``diffusers`` has them.
    """
    # The levels of its training times are shifted as well as the grid between the largest and smallest of them.
    low, high = shifted(0.001, shift), shifted(1.0, shift)
    even = torch.linspace(high, low, steps, dtype=torch.float64, device="cpu").tolist()
    return (*(shifted(level, shift) for level in even), 0.0)


def flow_levels_to(steps: int, shift: float, last: float = 0.0) -> tuple[float, ...]:
    """The same in even steps down to zero before the shift, and stretched so that the last one begins at ``last``
    where that is above zero: as LTX-Video's pipeline has them."""
    levels = [shifted(1 - i / steps, shift) for i in range(steps)]
    if last:
        stretch = (1 - levels[-1]) / (1 - last)
        levels = [1 - (1 - level) / stretch if stretch else level for level in levels]
    return (*levels, 0.0)


def shifted(level: float, shift: float) -> float:
    """A noise level of flow matching moved towards noise by a ``shift`` above 1 (Esser et al. 2024, equation 23)."""
    return shift * level / (1 + (shift - 1) * level)

"""BYOL-Explore as a reward: how well the future's features are foretold, in place of how likely the next frame is.

A network codes each frame; a recurrent one reads the codes up to a frame (closed loop), another goes on from there
without seeing more (open loop), and what it says k steps later is compared with the features of that frame by a
moving average of the encoder, both of length one. Guo et al., "BYOL-Explore: Exploration by Bootstrapped Prediction",
NeurIPS 2022, without actions, for films have none; the third video model of Escontrela et al. 2023 (VIPER).

    filmstrip train rewards.byol_explore:dmc --data experts --out runs/byol
    filmstrip reward runs/byol film.mp4 --out reward.mp4

The reward of a frame is minus the mean of the squared distances of all forecasts of it, from one to ``horizon`` steps
ahead. Its known failure is the reason that it is here: what stands still is easy to foretell, so that a pose that is
held earns much.

Where we deviate: the text sums the distances; the first frames of an episode have fewer and would look better.
Neither paper gives sizes for films: recurrent layers, predictor and projection of 512, eight steps, a moving average
of 0.99 and Adam's 1e-4 are ours, as are the encoder's convolutions (32 to 256 channels, each halving the frame).

The authors' code was not released. What is measured here is in the claim ``byol_still``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Count, NotEmpty, ShareBelowOne
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.errors import UserError
from filmstrip.evals.reward_alignment import RewardAlignment
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.momentum import follow
from filmstrip.protocols import Batch, Loss, Objective, as_float
from filmstrip.rl.films import ExpertFilms
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant


@dataclass(frozen=True, kw_only=True)
class ByolExploreConfig(ObjectiveConfig):
    """The networks, and how far they look ahead."""

    num_frames: Count = 16
    """Number of frames in a clip."""
    size: Count = 64
    """Height and width of frames, pixels."""
    widths: Annotated[tuple[Count, ...], NotEmpty] = (32, 64, 128, 256)
    """Channels of the encoder's convolutions, each of which halves the frame."""
    width: Count = 512
    """Numbers of a frame's features, of both recurrent states and of the predictor's hidden layer."""
    horizon: Count = 8
    """Largest number of steps that are foretold."""
    momentum: ShareBelowOne = 0.99
    """Share of the target encoder that stays at each step."""

    def build(self) -> ByolExplore:
        """Build the networks with fresh weights.

        Raises:
            UserError: clips have no second frame to foretell, or frames are too small.
        """
        if self.num_frames < 2:
            raise UserError(f"there is nothing to foretell in clips of {self.num_frames} frame: give two or more")
        if self.size < 2 ** len(self.widths):
            raise UserError(
                f"frames of {self.size} pixels cannot be halved {len(self.widths)} times: use fewer widths"
            )
        return ByolExplore(self)


class Features(nn.Sequential):
    """One vector ``N D`` for each frame ``N 3 H W`` in 0..1."""

    def __init__(self, widths: Sequence[int], width: int, size: int) -> None:
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((3, *widths)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
            size = -(-size // 2)
        super().__init__(*layers, nn.Flatten(), nn.Linear(widths[-1] * size * size, width))


class ByolExplore(Objective):
    """Squared distances of forecasts, which are learnt, from the features of a moving average of the encoder."""

    requires = ("video",)

    def __init__(self, config: ByolExploreConfig) -> None:
        super().__init__()
        self.config, self.num_frames = config, config.num_frames
        self.features = Features(config.widths, config.width, config.size)
        self.target = Features(config.widths, config.width, config.size).requires_grad_(False)
        self.target.load_state_dict(self.features.state_dict())
        self.closed = nn.GRU(config.width, config.width, batch_first=True)
        self.open = nn.GRUCell(1, config.width)
        nn.init.zeros_(self.open.weight_ih.requires_grad_(False))  # it sees nothing
        self.predictor = nn.Sequential(
            nn.Linear(config.width, config.width), nn.ReLU(), nn.Linear(config.width, config.width)
        )

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The mean over starts of the mean over steps ahead, averaged over the batch."""
        codes = self._coded(batch["video"])
        each, known = self.distances(codes)
        of_start = (each * known).sum(dim=2) / known.sum(dim=1).clamp(min=1)
        loss = of_start[:, :-1].mean()
        return Loss(loss, {"ahead_1": each[:, :-1, 0].detach().mean()})

    def _coded(self, video: Tensor) -> Tensor:
        """Features of the encoder and of its moving average, ``B T 2 D``."""
        frames = as_float(video.flatten(0, 1))
        with torch.no_grad():
            wanted = self.target(frames)
        return torch.stack([self.features(frames), wanted], dim=1).unflatten(0, video.shape[:2])

    def distances(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distances ``B T K`` of the forecasts of frame ``t + k + 1`` from frames up to ``t``, and which of
        these frames there are, ``T K`` (0 or 1)."""
        b, t = codes.shape[:2]
        states = self.closed(codes[:, :, 0])[0].flatten(0, 1)
        nothing = states.new_zeros(len(states), 1)
        wanted, found = F.normalize(codes[:, :, 1].detach().float(), dim=-1), []
        for ahead in range(1, self.config.horizon + 1):
            states = self.open(nothing, states)
            said = F.normalize(self.predictor(states).float(), dim=-1).unflatten(0, (b, t))
            later = F.pad(wanted[:, ahead:], (0, 0, 0, min(ahead, t)))
            found.append((said - later).square().sum(dim=-1))
        frame, steps = torch.arange(t, device=codes.device), torch.arange(self.config.horizon, device=codes.device)
        known = (frame[:, None] + steps + 1 < t).float()
        return torch.stack(found, dim=-1), known

    @torch.no_grad()
    def frame_codes(self, video: Tensor) -> Tensor:
        """Features of each frame, ``B T 2 D``; see :class:`~filmstrip.protocols.FrameScorer`."""
        return self._coded(video)

    @torch.no_grad()
    def frame_log_probs(self, codes: Tensor, batch: Batch) -> Tensor:
        """Minus the mean squared distance of all forecasts of each frame, ``B T 1 1``; zero of the first, which none
        foretells. It is no likelihood, and rises with it."""
        each, known = self.distances(codes)
        b, t = codes.shape[:2]
        total, count = each.new_zeros(b, t), each.new_zeros(t)
        for ahead in range(1, min(self.config.horizon, t - 1) + 1):
            total[:, ahead:] += (each * known)[:, : t - ahead, ahead - 1]
            count[ahead:] += 1
        return -(total / count.clamp(min=1))[..., None, None]

    def after_step(self, step: int) -> None:
        """Move the target towards the encoder."""
        follow(self.target, self.features, self.config.momentum, step)


def tiny() -> Run:
    """``point`` at 32 x 32 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=ExpertFilms(num_train=24, num_test=4, max_steps=24),
            clip=Clip(num_frames=6, stride=1, size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=ByolExploreConfig(num_frames=6, size=32, widths=(8, 16, 16), width=32, horizon=3),
        optim=AdamW(lr=2e-3, weight_decay=0.0),
        train=Loop(length=Steps(100)),
        evals=(RewardAlignment(trajectories=5),),
    )


def dmc() -> Run:
    """The DeepMind Control Suite at 64 x 64 pixels, clips of 16 frames, batches of 32."""
    run = tiny()
    return replace(
        run,
        data=replace(
            run.data,
            synthetic=None,
            clip=Clip(num_frames=16, stride=1, size=64, short_side=(64, 64)),
            batch_size=32,
        ),
        objective=ByolExploreConfig(),
        optim=AdamW(lr=1e-4, weight_decay=0.0, schedule=Constant()),
        train=Loop(length=Steps(500_000)),
        evals=(),
    )

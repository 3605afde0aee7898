"""Masked visual tokens: blackened patches are named by the codes that a frozen tokenizer has for them.

Fu et al. 2021 (VIOLET). The target is :class:`filmstrip.objectives.targets.Codes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import PositiveShare
from filmstrip.models.violet import VioletArchitecture, VioletEncoder
from filmstrip.nn.initialisation import init_linear
from filmstrip.objectives.config import FrozenPart
from filmstrip.objectives.latent import LatentConfig
from filmstrip.objectives.targets import Codes
from filmstrip.protocols import Grid, Objective
from filmstrip.randomness import uniform

MaskedPatches = Literal["blocks", "attended", "both"]


@dataclass(frozen=True, kw_only=True)
class VisualTokensConfig(VioletArchitecture, LatentConfig):
    """A video Swin, a transformer over its tokens, the tokenizer whose codes are predicted, and the masking."""

    masking: MaskedPatches = "both"
    """Masked patches: in ``blocks``, the most ``attended`` ones, or either by the toss of a coin for each clip."""
    attended_ratio: PositiveShare = 0.15
    """Share of all tokens, class tokens included, that attended masking masks."""

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """The tokenizer, where it is a trained one."""
        return {"target.tokenizer": FrozenPart("objective.tokenizer_run")}


class VisualTokens(Objective):
    """VIOLET's network, its frozen tokenizer, and the small network that says the codes of masked patches."""

    requires = ("video", "seed")
    starts_rest = True

    def __init__(self, config: VisualTokensConfig, *, reads_text: bool = False) -> None:
        super().__init__()
        self.encoder = VioletEncoder(config, reads_text=reads_text)
        self.target = Codes(config.build_tokenizer(), self.encoder.grid)
        width = self.encoder.width
        self.head = nn.Sequential(
            nn.Dropout(config.joint_dropout),
            nn.Linear(width, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, self.target.codebook_size),
        )
        init_linear(self.head, config.linear_init)
        self.masking: MaskedPatches = config.masking
        t, h, w = self.encoder.grid
        self.count = max(1, int(t * (1 + h * w) * config.attended_ratio))

    def masks(self, video: Tensor, seeds: Tensor) -> Tensor:
        """The masked patches of each clip, ``B t h w`` bool, by its seed (``B``)."""
        grid = self.encoder.grid
        if self.masking == "blocks":
            return choose_blocks(seeds, grid)
        attended = choose_attended(seeds, self.encoder.attended(video), self.count).view(-1, *grid)
        if self.masking == "attended":
            return attended
        return torch.where(in_blocks(seeds)[:, None, None, None], choose_blocks(seeds, grid), attended)

    def predict(self, video: Tensor, masked: Tensor) -> Tensor:
        """Logits of codes, ``B N K`` float32, of ``B T C H W`` video with ``masked`` patches (``B t h w`` bool)."""
        return self.head(self.encoder(video, masked=masked).tokens).float()

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: the encoder's, then the head."""
        part, _, rest = name.partition(".")
        return self.encoder.depth_of(rest) if part == "encoder" else self.encoder.depth + 1

    def named(self, logits: Tensor, codes: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """The cross-entropy of ``codes`` (``B N``) where patches are ``masked`` (``B N`` bool), and how often the
        likeliest code is the right one; of logits ``B N K``."""
        nats = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view_as(codes)
        count = masked.sum()
        right = (logits.detach().argmax(dim=-1) == codes) & masked
        return torch.where(masked, nats, 0.0).sum() / count, right.sum() / count


def in_blocks(seeds: Tensor) -> Tensor:
    """Whether a clip is masked in blocks, ``B`` bool, where a coin decides; drawn from its seed (``B``)."""
    return uniform(seeds, 1, "violet.masking")[:, 0] < 0.5


def choose_blocks(seeds: Tensor, grid: Grid) -> Tensor:
    """Patches that are masked in blocks, ``B t h w`` bool: as many blocks as frames, each of a size and at a place
    that are drawn from the clip's seed (``B``); below the clip's length, and below two thirds of height and width."""
    draws = uniform(seeds, grid.t * 6, "violet.blocks").view(-1, grid.t, 3, 2, 1)
    chosen = torch.ones(seeds.shape[0], grid.t, 1, 1, 1, dtype=torch.bool, device=seeds.device)
    for axis, count in enumerate(grid):
        most = max(1, count - 1 if axis == 0 else 2 * count // 3 - 1)
        size = 1 + (draws[:, :, axis, 0] * most).long()
        start = (draws[:, :, axis, 1] * (count - size + 1)).long()
        place = torch.arange(count, device=seeds.device)
        within = (place >= start) & (place < start + size)
        shape = [1, 1, 1]
        shape[axis] = count
        chosen = chosen & within.view(*within.shape[:2], *shape)
    return chosen.any(dim=1)


def choose_attended(seeds: Tensor, weights: Tensor, count: int) -> Tensor:
    """``count`` positions of each clip that are masked, ``B N`` bool, drawn without replacement in proportion to
    ``weights`` (``B N``, positive) from the clip's seed (``B``)."""
    draws = uniform(seeds, weights.shape[1], "violet.attended").clamp(min=2.0**-25)
    keys = weights.log() - (-draws.log()).log()
    return torch.zeros_like(keys, dtype=torch.bool).scatter(1, keys.topk(count, dim=1).indices, True)

"""What masked patches are predicted as by VIOLET: codes of a tokenizer of their frames, or their pixels.

The tokenizer is the mean of patches that are alike (k-means): a small discrete VAE rebuilds nothing of such frames
within the steps of a claim, and names by codes are what VIOLET asks for, whoever made them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from claims.training import Batch
from filmstrip.nn.quantise import EMAQuantiser
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.targets import Pixels, resized
from filmstrip.objectives.tokenizing import TokenizerObjective
from filmstrip.objectives.visual_tokens import VisualTokens
from filmstrip.protocols import Loss

TOKENIZER_STEPS, CODES, FRAMES, SIZE = 100, 64, 4, 32
Draw = Callable[[int, torch.Generator], Tensor]
"""Draws so many clips ``B T 3 H W``."""


class Patches(nn.Module):
    """An :class:`~filmstrip.objectives.tokenizing.Autoencoder` whose latents are the pixels of patches."""

    frames_apart = True
    patch_size = (1, 4, 4)

    def encode(self, video: Tensor) -> Tensor:
        """``B T C H W`` to ``B t h w D``."""
        return rearrange(video, "b t c (h p) (w q) -> b t h w (c p q)", p=4, q=4)

    def decode(self, latents: Tensor) -> Tensor:
        """The inverse."""
        return rearrange(latents, "b t h w (c p q) -> b t c (h p) (w q)", p=4, q=4)


class PatchCodes(TokenizerObjective):
    """The code of a patch is the mean, of many patches that are alike, that it is nearest to."""

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """How far patches are from their codes; codes move after a step."""
        return Loss(self.pass_through(batch["video"])[1].loss, {})


@dataclass(frozen=True, kw_only=True)
class PatchCodesConfig(ObjectiveConfig):
    """A code for a patch of 4 x 4 pixels."""

    def build(self) -> PatchCodes:
        """Build with fresh codes."""
        return PatchCodes(Patches(), EMAQuantiser(CODES, 3 * 4 * 4, decay=0.95))


def network(patch: int) -> dict[str, Any]:
    """Sizes of VIOLET's network, which has a token for a patch of so many pixels of a frame."""
    return {
        "tokenizer": PatchCodesConfig(),
        "untrained_tokenizer": True,
        "num_frames": FRAMES,
        "size": SIZE,
        "width": 24,
        "depths": (1, 1),
        "num_heads": (2, 4),
        "window": (2, 4, 4),
        "patch_size": (2, patch // 2, patch // 2),
        "linear_init": "glorot",
        "joint_depth": 2,
        "joint_num_heads": 4,
        "max_positions": (SIZE // patch) ** 2,
        "max_frames": FRAMES,
    }


def tokenizer(draw: Draw, size: int, seed: int) -> PatchCodes:
    """Codes of frames of clips, made smaller to a size."""
    torch.manual_seed(seed)
    model, generator = PatchCodesConfig().build(), torch.Generator().manual_seed(300 + seed)
    for step in range(TOKENIZER_STEPS):
        model({"video": resized(draw(32, generator)[:, ::FRAMES], (size, size))})
        model.after_step(step)
    return model.eval()


def give(model: VisualTokens, tokenizer: PatchCodes) -> None:
    """Let a network predict the codes of a trained tokenizer."""
    given, state = model.target.tokenizer, tokenizer.state_dict()
    given.load_state_dict({name: state[name] for name in given.state_dict()})


def seeded(draw: Callable[[torch.Generator], Batch], seed: int) -> Callable[[], Batch]:
    """Draws batches, with a seed for each clip, by which it is masked."""
    generator = torch.Generator().manual_seed(seed)

    def batch() -> Batch:
        drawn = draw(generator)
        return drawn | {"seed": torch.randint(1 << 40, (len(drawn["video"]),), generator=generator)}

    return batch


class PatchPixels(nn.Module):
    """The pixels of every patch, normalised patch by patch: ``B T C H W`` to ``B N (P C)``."""

    def __init__(self, patch_size: tuple[int, int, int]) -> None:
        super().__init__()
        self.pixels = Pixels(patch_size)

    def forward(self, video: Tensor) -> Tensor:
        """Targets of all patches."""
        t, p, q = self.pixels.patch_size
        patches = (video.shape[1] // t) * (video.shape[3] // p) * (video.shape[4] // q)
        return self.pixels(video, torch.arange(patches).expand(len(video), -1))


class ByPixels:
    """A mixin of VIOLET's objectives: masked patches are told by their pixels, with a squared error."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        size = self.encoder.patch_size
        self.target = PatchPixels(size)
        self.head[-1] = nn.Linear(self.head[-1].in_features, 3 * size[1] * size[2])

    def named(self, said: Tensor, pixels: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """The error where patches are ``masked`` (``B N`` bool); there is no code that could be right."""
        error = torch.where(masked, (said - pixels).square().mean(dim=-1), 0.0).sum() / masked.sum()
        return error, torch.zeros(())

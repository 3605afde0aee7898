"""Somebody else's vision network behind our :class:`~filmstrip.protocols.Encoder`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.nn.normalise import Normalise
from filmstrip.protocols import Features, Grid, check_video

Pixels = Literal["images", "patches", "frames_first"]
"""What a network is fed: single images; single images as rows of patches (NaFlex); whole clips, ``B T C H W``."""


class FrozenEncoder(nn.Module):
    """A pretrained network with its normalisation; nothing in it is trained.

    Image networks see each frame alone. ``prefix`` tokens ([CLS], registers) stand before the patches; what sums up
    a frame or a clip is the network's pooled output where it has one (``pooled``), else its first token, else there
    is none.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        width: int,
        pixels: Pixels,
        patch_size: tuple[int, int, int],
        mean: Sequence[float],
        std: Sequence[float],
        prefix: int = 0,
        pooled: bool = False,
        options: dict[str, bool] | None = None,
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.normalise = Normalise(mean, std)
        self.width = width
        self.patch_size = patch_size
        self.pixels = pixels
        self.frames_apart = pixels != "frames_first"
        self.prefix = prefix
        self.has_pooled = pooled
        self.options = options or {}

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Does nothing: dropout stays off."""
        return self

    @torch.no_grad()
    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video; the grid has a moment for each frame, or for each group of frames.

        Raises:
            ValueError: the shape is not that of video, or patches do not tile it.
        """
        check_video(video, multiple=self.patch_size)
        grid = Grid(*(size // patch for size, patch in zip((video.shape[1], *video.shape[3:]), self.patch_size)))
        dtype = next(self.network.parameters()).dtype
        said = self._run(self.normalise(video).to(dtype), layers)
        hidden = said.hidden_states[1:] if layers else ()
        tokens = self._tokens(said.last_hidden_state, grid)
        summary = self._summary(said)
        if summary is not None:
            summary = rearrange(summary, "(b k) d -> b k d", b=video.shape[0])
        return Features(
            tokens,
            grid,
            tuple(self._tokens(h, grid) for h in hidden),
            summary,
            tuple(rearrange(h[:, 0], "(b t) d -> b t d", t=grid.t) for h in hidden) if self._has_class_tokens else (),
        )

    @property
    def _has_class_tokens(self) -> bool:
        """Whether it sees each frame alone, with a class token in front."""
        return self.prefix > 0 and self.pixels != "frames_first"

    def _run(self, pixels: Tensor, layers: bool) -> object:
        options = {**self.options, "output_hidden_states": layers}
        if self.pixels == "frames_first":
            return self.network(pixels, **options)
        frames = rearrange(pixels, "b t c h w -> (b t) c h w")
        if self.pixels == "images":
            return self.network(frames, **options)
        _, p, q = self.patch_size
        patches = rearrange(frames, "n c (h p) (w q) -> n (h w) (p q c)", p=p, q=q)
        shapes = torch.tensor([frames.shape[2] // p, frames.shape[3] // q]).expand(frames.shape[0], 2)
        whole = torch.ones(patches.shape[:2], dtype=torch.int64, device=patches.device)
        return self.network(patches, pixel_attention_mask=whole, spatial_shapes=shapes, **options)

    def _tokens(self, hidden: Tensor, grid: Grid) -> Tensor:
        """The patches' tokens, in our order; a convolutional network has one for each position of its last map."""
        if hidden.ndim == 4:
            hidden = rearrange(hidden, "n c h w -> n (h w) c")
        hidden = hidden[:, self.prefix :]
        return hidden if self.pixels == "frames_first" else rearrange(hidden, "(b t) n d -> b (t n) d", t=grid.t)

    def _summary(self, said: object) -> Tensor | None:
        """One vector for each image or clip that the network was given."""
        if self.has_pooled:
            return said.pooler_output
        return said.last_hidden_state[:, 0] if self.prefix else None

"""What all tokenizers share: an autoencoder with a bottleneck, used as a :class:`~filmstrip.protocols.Tokenizer`."""

from __future__ import annotations

from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor

from filmstrip.nn.quantise import Bottleneck, Quantised, Quantiser
from filmstrip.protocols import Grid, Objective, Tokens, as_float, check_video


class Autoencoder(Protocol):
    """Two networks that :class:`TokenizerObjective` joins with a bottleneck."""

    patch_size: tuple[int, int, int]
    """Frames, rows and columns that one token stands for."""
    frames_apart: bool
    """Whether each frame is rebuilt from its own tokens alone."""

    def encode(self, video: Tensor) -> Tensor:
        """Latents ``B t h w D`` of ``B T C H W`` video in 0..1."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """The decoder's prediction of pixels, ``B T C H W``."""
        ...


class TokenizerObjective(Objective):
    """An autoencoder and a bottleneck. Subclasses add the loss, and :meth:`pixels` if the decoder says more."""

    training_only: tuple[str, ...] = ()
    """Submodules that neither :meth:`encode` nor :meth:`decode` uses; a prior's frozen copy goes without them."""
    first_alone: bool = False
    """Whether the first frame of a clip has tokens of its own, and only the frames after it share theirs; tokens then
    depend on no later frame."""

    def __init__(self, autoencoder: Autoencoder, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.bottleneck = bottleneck

    @property
    def codebook_size(self) -> int | None:
        """Number of ids; none for continuous tokens."""
        return self.bottleneck.codebook_size

    @property
    def frames_apart(self) -> bool:
        """Whether each frame is rebuilt from its own tokens alone; then it can be shown before the next is known."""
        return self.autoencoder.frames_apart

    @property
    def patch_size(self) -> tuple[int, int, int]:
        """Frames, rows and columns that one token stands for."""
        return self.autoencoder.patch_size

    def grid_of(self, num_frames: int, height: int, width: int) -> Grid:
        """Grid of the tokens of clips of a size.

        Raises:
            ValueError: patches do not tile it.
        """
        t, h, w = self.patch_size
        first = int(self.first_alone)
        if num_frames < first or (num_frames - first) % t or height % h or width % w:
            clip = f"video of {num_frames} x {height} x {width} (T x H x W)"
            after = ", its first frame left out," if first else ""
            raise ValueError(f"{clip}{after} is not a multiple of patches {self.patch_size}")
        return Grid(first + (num_frames - first) // t, height // h, width // w)

    def check(self, video: Tensor) -> None:
        """Refuse a tensor that is not ``B T C H W``, or that patches do not tile.

        Raises:
            ValueError: states the actual and the expected shape.
        """
        check_video(video)
        self.grid_of(video.shape[1], *video.shape[3:])

    def pixels(self, decoded: Tensor) -> Tensor:
        """Video in 0..1 from what the decoder says."""
        return decoded.clamp(0, 1)

    def pass_through(self, video: Tensor) -> tuple[Tensor, Quantised]:
        """The decoder's prediction for ``B T C H W`` video in 0..1, and the bottleneck's result for it."""
        self.check(video)
        passage = self.bottleneck(self.autoencoder.encode(video))
        return self.autoencoder.decode(passage.latents), passage

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tokens:
        """Code ``B T C H W`` video: ``ids`` (``B N``; several codebooks side by side for each position), or latents.

        Raises:
            ValueError: the shape of the video does not fit.
        """
        self.check(video)
        passage = self.bottleneck(self.autoencoder.encode(as_float(video)))
        grid = Grid(*passage.latents.shape[1:4])
        if passage.ids is None:
            return Tokens(grid, latents=rearrange(passage.latents, "b t h w d -> b (t h w) d"))
        return Tokens(grid, ids=passage.ids.flatten(1))

    def decode(self, tokens: Tokens) -> Tensor:
        """Rebuild ``B T C H W`` video in 0..1.

        Raises:
            ValueError: there are not as many tokens as the grid has positions, or an id is outside the codebook.
        """
        return self.pixels(self.autoencoder.decode(self.latents_of(tokens)))

    def latents_of(self, tokens: Tokens) -> Tensor:
        """The decoder's input, ``B t h w D``; raises as :meth:`decode` does."""
        t, h, w = tokens.grid
        latents = tokens.latents
        if latents is None:
            latents = self._look_up(tokens)
        if latents.ndim != 3 or latents.shape[1] != t * h * w or latents.shape[2] != self.bottleneck.latent_dim:
            raise ValueError(
                f"expected latents of shape (B, {t * h * w}, {self.bottleneck.latent_dim}) on a grid of "
                f"{t} x {h} x {w}, got {tuple(latents.shape)}"
            )
        return rearrange(latents, "b (t h w) d -> b t h w d", t=t, h=h, w=w)

    def _look_up(self, tokens: Tokens) -> Tensor:
        """Latents ``B N D`` of ids ``B (N G)``."""
        ids, grid = tokens.ids, tokens.grid
        if ids is None or not isinstance(self.bottleneck, Quantiser):
            wanted = "ids" if isinstance(self.bottleneck, Quantiser) else "latents, being continuous"
            raise ValueError(f"this tokenizer decodes {wanted}; the tokens given have none")
        places, books = grid.t * grid.h * grid.w, self.bottleneck.num_codebooks
        if ids.ndim != 2 or ids.shape[1] != places * books:
            raise ValueError(
                f"expected ids of shape (B, {places * books}) on a grid of {grid.t} x {grid.h} x {grid.w} with "
                f"{books} codebook(s), got {tuple(ids.shape)}"
            )
        low, high = ids.min().item(), ids.max().item()
        if low < 0 or high >= self.bottleneck.codebook_size:
            raise ValueError(f"ids lie in 0..{self.bottleneck.codebook_size - 1}; {low}..{high} were given")
        return self.bottleneck.decode(rearrange(ids, "b (n g) -> b n g", g=books) if books > 1 else ids)

    def after_step(self, step: int) -> None:
        """Move the bottleneck's codes or schedules on."""
        self.bottleneck.after_step(step)

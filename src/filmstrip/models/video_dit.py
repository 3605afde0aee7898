"""A diffusion transformer of video: noised latents in, what is to be predicted of them out.

DiT's (Peebles & Xie 2023) for clips: patches of latents, norms that the time shifts, scales and gates, and attention
among all positions, or within frames and along time. Its settings make it the network of VDT (Lu et al. 2023), of
Latte (Ma et al. 2024), of Wan (Wan Team 2025) and of LTX-Video (HaCohen et al. 2024), whose files
:mod:`filmstrip.models.video_dit_layouts` reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Bounds, Count, CountOrZero, Rate
from filmstrip.errors import UserError
from filmstrip.nn.attention import Attention
from filmstrip.nn.initialisation import STD, init_glorot
from filmstrip.nn.masks import Mask
from filmstrip.nn.mlp import MLP
from filmstrip.nn.patches import patchify, unpatchify
from filmstrip.nn.positions import sincos_halves, sincos_plane
from filmstrip.nn.rotary import Rotary, grid_positions
from filmstrip.nn.time_embedding import TimeEmbedding
from filmstrip.nn.two_branch import AdaptiveNorm, allow_keys, modulate, split
from filmstrip.protocols import Grid

SpaceTime = Literal["joint", "alternating", "divided"]
"""Attention among all positions of a clip; in turns within frames in one block and along time in the next (Latte); or
in every block along time and then within frames (VDT)."""
Along = Literal["all", "space", "time"]
_PARTS = 6  # shift, scale and gate of attention, then of the feed-forward network


@dataclass(frozen=True, kw_only=True)
class VideoDiTArchitecture:
    """The configuration of a :class:`VideoDiT`."""

    width: Count = 1152
    depth: Count = 28
    """Number of blocks; of alternating ones each second is along time."""
    num_heads: Count = 16
    mlp_width: Count = 4608
    """Dimension within a feed-forward network."""
    patch_size: tuple[Count, Count, Count] = (1, 2, 2)
    """Latents in a token along time, height and width."""
    attention: SpaceTime = "divided"
    """Which positions attend to each other."""
    positions: Literal["added", "rotary", "metric"] = "added"
    """Fixed sine and cosine vectors, added to tokens; rotary embeddings along time, height and width, by numbers of
    latents; or rotary ones by seconds and pixels, each head with its own share of the angles (LTX-Video)."""
    latent_steps: tuple[Rate, Rate, Rate] = (0.32, 32.0, 32.0)
    """Seconds, and pixels of height and width, from one latent to the next, for metric positions; a published
    autoencoder says so."""
    modulation: Literal["block", "shared"] = "block"
    """Shifts, scales and gates from the time by a layer of each block (adaLN-Zero), or by one layer for all blocks,
    to which each adds a learned table (adaLN-single, Chen et al. 2024)."""
    context_width: CountOrZero = 0
    """Dimension of the text's vectors, read by cross-attention; zero for a network that reads no text."""
    context_norm: bool = False
    """Whether tokens are normalised before they attend to the text."""
    context_mask: bool = False
    """Whether padding of texts is not attended to."""
    rms_norm: bool = False
    """Whether blocks normalise tokens by their root mean square, in place of layer normalisation."""
    qk_norm: bool = False
    """Whether queries and keys are normalised (RMS, all heads together)."""
    qk_norm_eps: Rate = 1e-6
    """Number added to their mean square."""
    variances: bool = False
    """Whether the network has outputs for the noise's variance beside its prediction, as published ones have."""
    time_frequencies: Annotated[int, Bounds(min=1)] = 128
    """Number of angular speeds at which the time is embedded."""


class SharedModulation(nn.Module):
    """A learned table of ``parts`` vectors, which is added to shifts, scales and gates that all blocks share."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(parts, width) / width**0.5)

    def forward(self, shared: Tensor) -> Tensor:
        """``B (parts D)``, as of :class:`~filmstrip.nn.two_branch.AdaptiveNorm`."""
        return shared + self.table.flatten()


class DiTBlock(nn.Module):
    """Attention, attention to the text, and a feed-forward network; the time modulates the first and the last."""

    def __init__(self, config: VideoDiTArchitecture, along: Along) -> None:
        super().__init__()
        width, self.along = config.width, along
        self.width = width
        self.rms = config.rms_norm
        norm = {
            "qk_norm": "together" if config.qk_norm else False,
            "qk_norm_eps": config.qk_norm_eps if config.qk_norm else None,
        }
        modulation = AdaptiveNorm if config.modulation == "block" else SharedModulation
        self.modulation = modulation(width, _PARTS)
        self.divided = config.attention == "divided"
        if self.divided:
            self.time_norm = nn.LayerNorm(width)
            self.time_attention = Attention(width, config.num_heads)
            self.time_fc = nn.Linear(width, width)
        self.attention = Attention(width, config.num_heads, **norm)
        self.reads = bool(config.context_width) and along != "time"
        if self.reads:
            self.context_norm = nn.LayerNorm(width, eps=1e-6) if config.context_norm else nn.Identity()
            self.context_attention = Attention(width, config.num_heads, context_width=width, **norm)
        self.mlp = MLP(width, config.mlp_width, gelu="tanh")

    def forward(
        self,
        x: Tensor,
        grid: Grid,
        time: Tensor,
        context: Tensor | None = None,
        angles: Tensor | None = None,
        words: Mask | None = None,
    ) -> Tensor:
        """``B N D`` tokens of a grid.

        ``time`` is embedded (``B D``), or the modulation that blocks share (``B 6D``); ``context`` the text's vectors
        ``B L D``, of which ``words`` are attended to, ``angles`` rotary ones of the positions, ``N d/2`` or, each
        head's own, ``1 H N d/2``.
        """
        shift, scale, gate, *for_mlp = split(self.modulation(time), self.width)
        if self.divided:
            read = _attended(self.time_attention, self.time_norm(x), grid, "time", angles)
            x = x + self.time_fc(read)
        read = _attended(self.attention, modulate(x, shift, scale, rms=self.rms), grid, self.along, angles)
        x = torch.addcmul(x, gate, read)
        if self.reads and context is not None:
            x = x + self.context_attention(self.context_norm(x), context=context, mask=words)
        shift, scale, gate = for_mlp
        return torch.addcmul(x, gate, self.mlp(modulate(x, shift, scale, rms=self.rms)))


def _attended(attention: Attention, x: Tensor, grid: Grid, along: Along, angles: Tensor | None) -> Tensor:
    """Attention of ``B N D`` tokens among all of them, within frames, or at each place along time."""
    if along == "all":
        return attention(x, angles=angles)
    groups = "(b t) p d" if along == "space" else "(b p) t d"
    if angles is not None:  # what is equal within a group turns nothing
        of_frames = angles.unflatten(0, (grid.t, -1))
        angles = of_frames[0] if along == "space" else of_frames[:, 0]
    read = attention(rearrange(x, f"b (t p) d -> {groups}", t=grid.t), angles=angles)
    return rearrange(read, f"{groups} -> b (t p) d", b=x.shape[0], t=grid.t)


METRIC_FPS = 25.0
"""Frames of a second for metric positions, whichever films are shown at: LTX-Video's."""
_SPANS = (20.0, 2048.0, 2048.0)
"""Seconds and pixels that LTX-Video's angles span half a turn over."""


class MetricRotary(nn.Module):
    """Rotary angles by seconds and pixels (HaCohen et al. 2024): pairs of all heads' channels take turns among time,
    height and width, slow ones first, from a quarter of a turn over the span to 10,000 times as much."""

    def __init__(self, width: int, num_heads: int, steps: tuple[float, float, float]) -> None:
        super().__init__()
        self.width, self.num_heads, self.steps = width, num_heads, steps

    def forward(self, positions: Tensor) -> Tensor:
        """Angles ``1 H N d/2`` (radians, float32) of positions ``N 3``, numbers of latents."""
        own = {"device": positions.device, "dtype": torch.float32}
        places = positions.float() * torch.tensor(self.steps, **own) / torch.tensor(_SPANS, **own)
        speeds = 10_000.0 ** torch.linspace(0, 1, self.width // 6, **own) * torch.pi / 2
        angles = (speeds[:, None] * (2 * places[:, None] - 1)).flatten(1)
        still = angles.new_zeros(len(angles), self.width // 2 - angles.shape[1])  # where six do not divide the width
        return rearrange(torch.cat([still, angles], dim=1), "n (h d) -> 1 h n d", h=self.num_heads)


class VideoDiT(nn.Module):
    """Noised latents ``B T D h w``, times ``B`` and texts to what is to be predicted of the latents."""

    def __init__(self, config: VideoDiTArchitecture, *, channels: int, size: Grid) -> None:
        """``size``: frames, height and width of the latents that it is for, to which added positions belong.

        Raises:
            UserError: patches do not tile the latents, heads do not divide the width, or layers along time lack a
                partner.
        """
        super().__init__()
        self.config, self.channels, self.size = config, channels, size
        self.grid = self._grid(size)
        width = config.width
        if width % config.num_heads or width % 4:
            raise UserError(
                f"a width of {width} is no multiple of 4 and of {config.num_heads} heads: change "
                "transformer.width or transformer.num_heads"
            )
        if config.attention == "alternating" and config.depth % 2:
            raise UserError(f"alternating blocks come in pairs, and the depth is {config.depth}: make it even")
        volume = config.patch_size[0] * config.patch_size[1] * config.patch_size[2]
        self.embed = nn.Linear(volume * channels, width)
        self.time = TimeEmbedding(width, frequencies=config.time_frequencies)
        self.rotary: Rotary | MetricRotary | None = None
        if config.positions != "added":
            head_dim = width // config.num_heads
            if head_dim % 2 or head_dim < 6:
                raise UserError(f"rotary positions need heads of an even dimension of 6 or more, got {head_dim}")
            if config.positions == "rotary":
                self.rotary = Rotary(head_dim, axes=3)
            elif config.attention == "joint":
                self.rotary = MetricRotary(width, config.num_heads, config.latent_steps)
            else:
                raise UserError("metric positions are for attention among all positions (attention joint)")
        else:
            self.register_buffer("places", sincos_plane(*self.grid[1:], width), persistent=False)
            times = sincos_halves(torch.arange(self.grid.t), width).float()
            self.register_buffer("times", times, persistent=False)
        self.shared = nn.Linear(width, _PARTS * width) if config.modulation == "shared" else None
        self.context = MLP(config.context_width, width, width, gelu="tanh") if config.context_width else nn.Identity()
        turns: dict[SpaceTime, tuple[Along, Along]] = {
            "joint": ("all", "all"),
            "alternating": ("space", "time"),
            "divided": ("space", "space"),
        }
        self.blocks = nn.ModuleList(DiTBlock(config, turns[config.attention][i % 2]) for i in range(config.depth))
        modulation = AdaptiveNorm if config.modulation == "block" else SharedModulation
        self.out_modulation = modulation(width, 2)
        self.out = nn.Linear(width, volume * channels * (1 + config.variances))
        self._initialise()

    def _initialise(self) -> None:
        """As DiT: Glorot's, with gates and outputs of zero, so that blocks start as the identity."""
        self.apply(init_glorot)
        for layer in (self.time.fc1, self.time.fc2):
            nn.init.normal_(layer.weight, std=STD)
        zero = [self.out, *(m.linear for m in self.modules() if isinstance(m, AdaptiveNorm))]
        for layer in zero if self.shared is None else (*zero, self.shared):
            nn.init.zeros_(layer.weight)

    def _grid(self, size: Grid) -> Grid:
        """The grid of tokens of latents of a size.

        Raises:
            UserError: patches do not tile it.
        """
        patch = self.config.patch_size
        if any(n % p for n, p in zip(size, patch)):
            raise UserError(
                f"latents of {size.t} x {size.h} x {size.w} are no multiple of patches of "
                f"{patch[0]} x {patch[1]} x {patch[2]}: change the clip's size or length, or transformer.patch_size"
            )
        return Grid(*(n // p for n, p in zip(size, patch)))

    def read(self, texts: Tensor) -> Tensor:
        """Vectors ``B L D`` that blocks attend to, of those of texts, ``B L C``: the same for all times."""
        return self.context(texts)

    def forward(
        self, latents: Tensor, time: Tensor, context: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """``B T D h w`` (``B T 2D h w`` with variances, which come last) of ``B T D h w`` latents at times ``B``,
        0..1000; ``context`` is of :meth:`read`, ``valid`` (``B L`` bool) marks what of it is no padding.

        Raises:
            UserError: the network reads texts and was given none.
            ValueError: the latents have another size than the positions are for.
        """
        if self.config.context_width and context is None:
            raise UserError("this network reads texts: give one, at least the empty text")
        size = Grid(latents.shape[1], *latents.shape[3:])
        grid, angles = self._grid(size), None
        x = self.embed(patchify(latents, self.config.patch_size).flatten(2))
        if self.rotary is not None:
            angles = self.rotary(grid_positions(tuple(grid), x.device))
        elif size != self.size:
            raise ValueError(
                f"this network has positions for latents of {tuple(self.size)}, got {tuple(size)}: set "
                "objective.num_frames and objective.size to the clips'"
            )
        else:
            x = x + self.places.to(x.dtype).repeat(grid.t, 1)
        words = allow_keys(valid) if self.config.context_mask and valid is not None else None
        embedded = self.time(time)
        shared = embedded if self.shared is None else self.shared(nn.functional.silu(embedded))
        for i, block in enumerate(self.blocks):
            if self.rotary is None and i == self._times_at:
                x = x + self.times.to(x.dtype).repeat_interleave(grid.h * grid.w, dim=0)
            x = block(x, grid, shared, context, angles, words)
        last = embedded if self.shared is None else embedded.repeat(1, 2)
        x = self.out(modulate(x, *split(self.out_modulation(last), self.config.width)))
        return unpatchify(
            x.unflatten(2, (-1, self.channels * (1 + self.config.variances))), grid, self.config.patch_size
        )

    @property
    def _times_at(self) -> int:
        """Number of the block before which positions along time are added: Latte's first one within frames has none,
        and neither has a clip of one frame there."""
        if self.config.attention != "alternating":
            return 0
        return 1 if self.grid.t > 1 else -1

    def depth_of(self, name: str) -> int:
        """The layer index of a parameter: what comes before the blocks, each block, and what comes after."""
        parts = name.split(".")
        if parts[0] == "blocks":
            return 1 + int(parts[1])
        return 1 + len(self.blocks) if parts[0] in ("out", "out_modulation") else 0

"""Models of a tokenizer's codes: the tokenizer is part of them, frozen.

A preset names the paper's tokenizer by its address: ``systems.find("tokenizers.vqvae3d:bair").objective``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from filmstrip.bounds import Count
from filmstrip.errors import UserError
from filmstrip.objectives.config import FrozenPart, ObjectiveConfig
from filmstrip.objectives.tokenizing import TokenizerObjective
from filmstrip.protocols import Batch, Grid, Objective, Tokenizer, Tokens, check_video
from filmstrip.settings import FREE


@dataclass(frozen=True, kw_only=True)
class LatentConfig(ObjectiveConfig):
    """The tokenizer, and the clips whose codes are modelled."""

    continuous: ClassVar[bool] = False
    """Whether the tokenizer's tokens are to be continuous latents instead of codes."""

    tokenizer: ObjectiveConfig
    """The tokenizer's network; a ``tokenizer_run`` replaces it by its own."""
    tokenizer_run: str | None = None
    """A run folder whose tokenizer is taken when training starts. Its weights stay there: this run refers to them by
    their fingerprint."""
    untrained_tokenizer: bool = field(default=False, metadata=FREE)
    """Whether the tokenizer may be untrained where no ``tokenizer_run`` is named: to try things out."""
    num_frames: Count = 16
    size: Count = 64
    """Frames, and their height and width in pixels, of the clips that are coded."""

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """The tokenizer, where it is a trained one."""
        return {"tokenizer": FrozenPart("objective.tokenizer_run")}

    def with_tokenizer_of_hub(self, config: Mapping[str, Any], source: str) -> Self:
        """This method with the tokenizer that a ``config.json`` in the layout of ``diffusers`` describes.

        Raises:
            UserError: it describes another kind of network than the tokenizer here.
        """
        if type(self.tokenizer).of_hub is ObjectiveConfig.of_hub:
            raise UserError(
                f"{source} is a model in the Hub's layout, and none of those is a {type(self.tokenizer).__name__}, "
                "the tokenizer of this preset: name a run (--objective.tokenizer-run FOLDER)"
            )
        return replace(self, tokenizer=self.tokenizer.of_hub(config, None, source)[0])

    def build_tokenizer(self) -> TokenizerObjective:
        """The tokenizer with fresh weights, without what only its own training needs.

        Raises:
            UserError: the tokenizer has no codes, or has them where latents are needed.
        """
        tokenizer = self.tokenizer.build()
        has_codes = getattr(tokenizer, "codebook_size", None) is not None
        if self.continuous and isinstance(tokenizer, TokenizerObjective) and has_codes:
            raise UserError(
                f"{type(self.tokenizer).__name__} makes codes, and continuous latents are needed: give a tokenizer "
                "without a codebook (tokenizers.vae_kl)"
            )
        if not isinstance(tokenizer, Tokenizer) or not (has_codes or self.continuous):
            raise UserError(
                f"{type(self.tokenizer).__name__} makes no codes to model: give a tokenizer with a codebook"
            )
        for name in tokenizer.training_only:
            delattr(tokenizer, name)
        return tokenizer


class CodedVideo(nn.Module):
    """Owns a frozen tokenizer: always in evaluation mode, without gradients, in no optimiser.

    Batches hold ``video``, or ``tokens`` that the same tokenizer made beforehand (``B N`` int64), which then are
    used instead. ``grid`` is the number of positions along time, height and width, each with ``num_codebooks`` codes
    side by side.
    """

    any_grid = False
    """Whether videos may have another length and size than the model was configured for."""

    def __init__(self, tokenizer: TokenizerObjective, *, num_frames: int, size: int) -> None:
        super().__init__()
        self.tokenizer = tokenizer.eval().requires_grad_(False)
        t, h, w = tokenizer.patch_size
        if num_frames % t or size % h or size % w:
            raise UserError(
                f"clips of {num_frames} frames of {size} x {size} are no multiple of the tokenizer's patches, "
                f"{t} x {h} x {w}"
            )
        self.grid = Grid(num_frames // t, size // h, size // w)
        self.num_frames = num_frames
        self.codebook_size: int = tokenizer.codebook_size
        self.num_codebooks: int = tokenizer.bottleneck.num_codebooks

    def train(self, mode: bool = True) -> Self:
        """Everything but the tokenizer goes into training mode."""
        super().train(mode)
        self.tokenizer.eval()
        return self

    @torch.no_grad()
    def codes(self, batch: Batch) -> Tokens:
        """The ids of a batch, ``B (N G)``: those it brings, or those of its video (in full precision).

        Raises:
            UserError: it has neither, its ids are of variable length, outside the codebook, or not as many as there
                are positions, or its video is longer or of another size than this model has positions for.
            ValueError: its video has another shape than the tokenizer needs.
        """
        if "tokens" in batch:
            if "lengths" in batch:
                raise UserError(
                    f"the cached tokens are of variable length, which {type(self).__name__} does not model: encode "
                    "without --error"
                )
            ids = batch["tokens"]
            places = self.grid.t * self.grid.h * self.grid.w * self.num_codebooks
            if ids.ndim != 2 or ids.shape[1] != places:
                raise UserError(
                    f"the cached tokens are {tuple(ids.shape[1:])} a clip, and this model has places for {places}: "
                    "encode clips of the same length and size with the same tokenizer"
                )
            # Looking would hold up every step on a GPU, and end a compiled graph; whoever read the ids from a file
            # has looked already.
            looks = ids.device.type == "cpu" and not torch.compiler.is_compiling()
            if looks and ids.numel() and not 0 <= ids.min() <= ids.max() < self.codebook_size:
                raise UserError(
                    f"the tokens are ids in 0..{self.codebook_size - 1}; {ids.min()}..{ids.max()} were given"
                )
            return Tokens(self.grid, ids=ids)
        if "video" not in batch:
            raise UserError(
                f"{type(self).__name__} needs 'video' or 'tokens' in its batches, and they have {list(batch)}"
            )
        video = batch["video"]
        check_video(video, multiple=self.tokenizer.patch_size)
        grid = Grid(*(n // p for n, p in zip((video.shape[1], *video.shape[3:]), self.tokenizer.patch_size)))
        if not self.any_grid and (grid.t > self.grid.t or grid[1:] != self.grid[1:]):
            raise UserError(
                f"clips have {tuple(grid)} codes (t, h, w) and the model has positions for {tuple(self.grid)}: set "
                "objective.num_frames and objective.size to the clips'"
            )
        with torch.autocast(video.device.type, enabled=False):
            return self.tokenizer.encode(video)

    @torch.no_grad()
    def frame_codes(self, video: Tensor) -> Tensor:
        """The ids of each frame alone, ``B T n``, of video of any length; see
        :class:`~filmstrip.protocols.FrameScorer`.

        Raises:
            UserError: the tokenizer codes several frames together.
        """
        if not self.tokenizer.frames_apart:
            raise UserError(
                f"{type(self.tokenizer).__name__} codes frames together, and a likelihood of single frames needs one "
                "that codes each alone, such as tokenizers.vqgan"
            )
        ids = self.codes({"video": video.flatten(0, 1)[:, None]}).ids
        return ids.view(*video.shape[:2], -1)

    @torch.no_grad()
    def video_of(self, tokens: Tokens) -> Tensor:
        """Video decoded from codes: ``B T C H W`` in 0..1, float32."""
        with torch.autocast(tokens.ids.device.type, enabled=False):
            return self.tokenizer.decode(tokens)


class LatentObjective(CodedVideo, Objective):
    """An objective over the codes of a frozen tokenizer."""

    requires = ()  # video or tokens: codes() says so

"""What masked prediction is asked for at positions: pixels, a frozen teacher's features, a tokenizer's codes."""

from __future__ import annotations

from typing import Literal, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.func import functional_call

from filmstrip.errors import UserError
from filmstrip.nn.patches import patchify, take
from filmstrip.objectives.latent import CodedVideo
from filmstrip.objectives.tokenizing import TokenizerObjective
from filmstrip.protocols import EncoderModule, Features, Grid, as_float

TeacherNorm = Literal["none", "layer", "l2"]
TeacherFrames = Literal["all", "first"]

EPS = 1e-6
"""Number that is added to a tubelet's standard deviation, as published."""


def normalise_tubelets(tubelets: Tensor) -> Tensor:
    """Each tubelet's pixels (``B K P C``) with zero mean and unit standard deviation in each channel."""
    variance, mean = torch.var_mean(tubelets, dim=2, keepdim=True)
    return (tubelets - mean) / (variance.sqrt() + EPS)


class Pixels(nn.Module):
    """The pixels of tubelets, normalised tubelet by tubelet and channel by channel."""

    def __init__(self, patch_size: tuple[int, int, int]) -> None:
        super().__init__()
        self.patch_size = patch_size

    def forward(self, video: Tensor, positions: Tensor) -> Tensor:
        """Targets ``B K (P C)`` at ``positions`` (``B K``) of ``B T C H W`` video."""
        return normalise_tubelets(as_float(take(patchify(video, self.patch_size), positions))).flatten(2)


class Teacher(nn.Module):
    """Features of whole clips by an encoder that is never trained here: no gradient, always in evaluation mode.

    ``layer`` is the block whose output counts, before any last norm (-1: the last block's), or none for the encoder's
    own tokens. ``normalise``: ``layer`` gives every token zero mean and unit variance, ``l2`` unit length. With the
    ``first`` frames an encoder of images sees one of each of the student's tubelets; otherwise it sees ``all``. Clips
    are resized where the teacher's patches are of another size, so that both have the same grid.

    Raises:
        UserError: the encoder's grid is not the student's ``grid``.
    """

    def __init__(
        self,
        encoder: EncoderModule,
        grid: Grid,
        *,
        num_frames: int,
        size: int,
        layer: int | None = -1,
        normalise: TeacherNorm = "none",
        frames: TeacherFrames = "all",
    ) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        self.layer = layer
        self.normalise = normalise
        self.step = num_frames // grid.t if frames == "first" else 1
        patch = getattr(encoder, "patch_size", None)
        self.size = size if patch is None else grid.h * patch[1]
        self.resizes = self.size != size
        said = self._try_out(num_frames, size)
        if said.grid != grid:
            shown = f"{num_frames // self.step} frames of {self.size} x {self.size}"
            raise UserError(
                f"the teacher ({type(encoder).__name__}) makes a grid of {tuple(said.grid)} features of {shown}, and "
                f"the student has {tuple(grid)} tubelets: give a teacher with such a grid, or clips that make it one"
            )
        self.width = self._of(said).shape[-1]

    def train(self, mode: bool = True) -> Self:
        """Does nothing: dropout stays off."""
        return self

    @torch.no_grad()
    def forward(self, video: Tensor, positions: Tensor) -> Tensor:
        """Features ``B K D``, float32, at ``positions`` (``B K``) of ``B T C H W`` video, all of which is seen."""
        return take(self.features(video), positions)

    @torch.no_grad()
    def features(self, video: Tensor) -> Tensor:
        """Features of all positions, ``B N D``, float32."""
        return self._normalised(self._of(self.encoder(self.seen(video), layers=self.layer is not None)).float())

    def _normalised(self, tokens: Tensor) -> Tensor:
        if self.normalise == "layer":
            return F.layer_norm(tokens, tokens.shape[-1:], eps=EPS)
        return F.normalize(tokens, dim=-1) if self.normalise == "l2" else tokens

    @torch.no_grad()
    def last_layers(self, video: Tensor, count: int) -> list[Tensor]:
        """Outputs of the last ``count`` blocks, ``B N D`` float32 each; the very last after the encoder's norm."""
        said = self.encoder(self.seen(video), layers=True)
        return [self._normalised(tokens.float()) for tokens in (*said.layers[-count:-1], said.tokens)]

    def seen(self, video: Tensor) -> Tensor:
        """Those frames of ``B T C H W`` video that the teacher sees, in its size."""
        video = video[:, :: self.step]
        return resized(video, (self.size, self.size)) if self.resizes else video

    def _of(self, said: Features) -> Tensor:
        return said.tokens if self.layer is None else said.layers[self.layer]

    def _try_out(self, num_frames: int, size: int) -> Features:
        """What the encoder says of a clip, in shapes alone.

        Raises:
            UserError: it does not take such clips, or has no such layer.
        """
        name = f"the teacher ({type(self.encoder).__name__})"
        clip = self.seen(torch.empty(1, num_frames, 3, size, size, dtype=torch.uint8, device="meta"))
        said = try_out(self.encoder, clip, name, layers=self.layer is not None)
        try:
            self._of(said)
        except IndexError:
            raise UserError(f"{name} does not fit the clips: it has no layer {self.layer}") from None
        return said


class Codes(CodedVideo):
    """The codes that a frozen tokenizer has for tubelets (VIOLET's visual tokens; Fu et al. 2021).

    Frames are resized so that the tokenizer has one code for each position of the ``grid``.

    Raises:
        UserError: the tokenizer has several codes for a position.
    """

    def __init__(self, tokenizer: TokenizerObjective, grid: Grid) -> None:
        frames, height, width = tokenizer.patch_size
        if grid.h * height != grid.w * width:
            raise UserError(f"codes are those of square frames, and a grid of {tuple(grid)} has none")
        super().__init__(tokenizer, num_frames=grid.t * frames, size=grid.h * height)
        if self.num_codebooks > 1:
            raise UserError(
                f"{type(tokenizer).__name__} has {self.num_codebooks} codes a position: give one with one codebook"
            )
        self.size = (grid.h * height, grid.w * width)

    @torch.no_grad()
    def forward(self, video: Tensor, positions: Tensor | None = None) -> Tensor:
        """Codes ``B N`` int64 of ``B T C H W`` video, all of which is seen; or ``B K`` at ``positions``."""
        ids = self.codes({"video": resized(video, self.size)}).ids
        return ids if positions is None else take(ids, positions)


def resized(video: Tensor, size: tuple[int, int]) -> Tensor:
    """``B T C H W`` video with frames of another size (h, w), in 0..1."""
    frames = F.interpolate(
        as_float(rearrange(video, "b t c h w -> (b t) c h w")), size=size, mode="bilinear", antialias=True
    )
    return rearrange(frames, "(b t) c h w -> b t c h w", b=video.shape[0])


def try_out(encoder: nn.Module, clip: Tensor, name: str, *, layers: bool = False) -> Features:
    """What an encoder says of a clip, in shapes alone; ``name`` is what it is called in an error.

    Raises:
        UserError: it does not take such clips.
    """
    state = [*encoder.named_parameters(), *encoder.named_buffers()]
    with torch.device("meta"), torch.no_grad():
        stand_ins = {name: torch.empty(tensor.shape, dtype=tensor.dtype) for name, tensor in state}
        stand_in = torch.empty(clip.shape, dtype=clip.dtype)
        try:
            return functional_call(encoder, stand_ins, (stand_in,), {"layers": layers})
        except (ValueError, RuntimeError, IndexError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"{name} does not fit the clips: {reason}") from None

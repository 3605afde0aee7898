"""Depth control: a video is made anew by the text of the edit, in the depths of its source.

Text to video by latent diffusion, and beside its U-Net a copy of the way down and the middle, which also reads the
depth maps of the frames: what it finds is added to the maps that the U-Net passes on, through convolutions that start
at zero, so that a new branch changes nothing. Zhang et al., "Adding Conditional Control to Text-to-Image Diffusion
Models" (ControlNet), ICCV 2023, of images; as an editor of video by depth MoCA's comparison has Gen-1 (Esser et al.,
"Structure and Content-Guided Video Synthesis with Diffusion Models", 2023), which is a closed service: this is none.

    filmstrip train editing.depth_control --out runs/depth
    filmstrip edit runs/depth clip.mp4 --depth clip.depth.npz --to "a red disc moves left on sand" --type background

It learns from depth maps beside the videos (``--data.reads captioned_depth``); of synthetic scenes these are the true
ones, of what is in front. ``--init RUN`` begins with a network of text to video, such as one of ``editing.sdedit``,
and the branch with a copy of it; so does ``--init FILE``, a U-Net of ``diffusers``.

Where we deviate: the branch is a copy of the whole way down, layers over time included, as its U-Net has them; depth
maps are normalised over a clip, not frame by frame, so that they do not flicker; the branch's share in an edit is
guided by like the text (``--guidance.depth``), 1 being the publication's, which has no such scale; in ``tiny`` the
U-Net learns beside the branch, since there is none to begin with. Gen-1 has the depth as further channels of the
noised latents, blurs it by a degree that the user sets, and is told of looks by a picture's embedding.

An edit keeps the depths of its source whatever its type: what moves, moves as it did. With ``--guidance.depth 0``
nothing is left of the source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Annotated

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor, nn

from filmstrip.bounds import AnyNumber, Count, NotEmpty
from filmstrip.data.kinds.captioned_depth import CaptionedDepth
from filmstrip.errors import UserError
from filmstrip.models.video_unet import AttentionControl, HalfVideoUNet, VideoUNetArchitecture, start_at_zero
from filmstrip.objectives.diffusion import ConditionDropout
from filmstrip.objectives.latent_diffusion import Guidance, Known, LatentDiffusion, LatentDiffusionConfig
from filmstrip.protocols import Batch, Objective, VideoEdit
from filmstrip.runs.config import Run
from filmstrip.settings import FREE
from filmstrip.systems import find
from filmstrip.weights.keymap import Weights

DROPOUT = ConditionDropout(table=(("text", 0.1), ("depth", 0.1), ("text+depth", 0.1)))


@dataclass(frozen=True, kw_only=True)
class DepthGuidance(Guidance):
    """Scales of both conditions, in the order depth, text."""

    depth: AnyNumber = 1.0
    """Scale of the source's depth; 0 leaves it out."""


@dataclass(frozen=True, kw_only=True)
class DepthControlConfig(LatentDiffusionConfig):
    """Text to video, and the branch that reads depth."""

    picture_widths: Annotated[tuple[Count, ...], NotEmpty] = (16, 32, 96, 256)
    """Channels of the convolutions from depth maps to latents' size; all but the first halve height and width."""
    frozen_unet: bool = False
    """Whether the U-Net stays as it begins, as published, and the branch learns, and what leads to texts."""
    guidance: DepthGuidance = field(default_factory=DepthGuidance, metadata=FREE)
    """Scales of guidance, unless it is said otherwise."""

    def needs_init(self) -> str | None:
        """A branch of a network that knows nothing and never learns is of no use."""
        if self.frozen_unet:
            return (
                "the U-Net is frozen, and nothing says how it begins: name a run of text to video or a U-Net's file "
                "(--init), or let it learn (--objective.no-frozen-unet)"
            )
        return super().needs_init()

    def build(self) -> DepthControl:
        """Build everything with fresh weights.

        Raises:
            UserError: nothing is known of texts, or sizes do not fit.
        """
        return DepthControl(self)


@dataclass
class DepthKnown(Known):
    """Also the depth."""

    depth: Tensor | None = None
    """Depth maps ``B T 1 H W`` in 0..1, 1 the nearest, if they are known."""


class DepthBranch(HalfVideoUNet):
    """A copy of a U-Net's way down and middle that also reads pictures, and what it adds to the U-Net's maps."""

    def __init__(self, config: VideoUNetArchitecture, picture_widths: Sequence[int], *, inputs: int) -> None:
        """``inputs`` is the number of channels of the latents."""
        super().__init__(config, inputs=inputs)
        self.picture = nn.ModuleList([nn.Conv2d(3, picture_widths[0], 3, padding=1)])
        for given, width in pairwise(picture_widths):
            self.picture.append(nn.Conv2d(given, given, 3, padding=1))
            self.picture.append(nn.Conv2d(given, width, 3, stride=2, padding=1))
        self.picture_out = nn.Conv2d(picture_widths[-1], config.widths[0], 3, padding=1)
        self.passed = nn.ModuleList(nn.Conv2d(width, width, 1) for width in self.passed_widths)
        self.passed_middle = nn.Conv2d(config.widths[-1], config.widths[-1], 1)
        for part in (self.picture_out, *self.passed, self.passed_middle):
            start_at_zero(part)

    def forward(
        self, x: Tensor, time: Tensor, context: Tensor, pictures: Tensor, absent: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """What is added to the maps that the U-Net passes on, and to its middle's, each ``(B T) C h w``.

        ``pictures`` are ``B T 3 H W`` in 0..1; where rows are ``absent`` (``B`` bool), nothing is added.

        Raises:
            ValueError: height or width cannot be halved as often as there are levels.
        """
        step = self.start(x, time, context)
        y = pictures.flatten(0, 1).to(x.dtype)
        for conv in self.picture:
            y = F.silu(conv(y))
        passed, middle = self.contracted(self.conv_in(x.flatten(0, 1)) + self.picture_out(y), step)
        here = repeat(~absent, "b -> (b t) 1 1 1", t=x.shape[1]).to(x.dtype)
        return [here * conv(own) for conv, own in zip(self.passed, passed)], here * self.passed_middle(middle)

    def copied(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What it takes over from the state of a U-Net."""
        own = self.state_dict()
        return {name: value for name, value in state.items() if name in own}


class DepthControl(LatentDiffusion):
    """Text to video in given depths."""

    requires = ("video", "text", "text_length", "depth", "seed")
    order = ("depth", "text")
    reads_depth = True
    config: DepthControlConfig

    def __init__(self, config: DepthControlConfig) -> None:
        super().__init__(config)
        halvings = len(config.picture_widths) - 1
        if self.tokenizer.patch_size[1:] != (2**halvings, 2**halvings):
            raise UserError(
                f"picture_widths {config.picture_widths} halve depth maps {halvings} times, and latents are smaller "
                f"than frames by {self.tokenizer.patch_size[1]} x {self.tokenizer.patch_size[2]}"
            )
        self.branch = DepthBranch(config.unet, config.picture_widths, inputs=self.latent_dim)
        self.branch.load_state_dict(self.branch.copied(self.unet.state_dict()), strict=False)
        if config.frozen_unet:
            self.unet.requires_grad_(False)

    @property
    def name(self) -> str:
        """Prefix of the names under which random numbers are drawn."""
        return "depth_control"

    def told(self, context: Tensor) -> DepthKnown:
        """Texts alone: no depth is known."""
        return DepthKnown(context, self.read_empty())

    def known(self, batch: Batch, latents: Tensor) -> DepthKnown:
        """The text and the depth."""
        told = self.told(self.read(batch["text"], batch["text_length"]))
        return replace(told, depth=normalised(batch["depth"]))

    def run(
        self, known: Known, x: Tensor, time: Tensor, absent: Mapping[str, Tensor], control: AttentionControl | None
    ) -> Tensor:
        """The U-Net's output ``B T D h w`` for noised latents, with what the branch adds."""
        assert isinstance(known, DepthKnown)
        x, context, added = self.inputs(known, x, absent)
        beside = None
        if known.depth is not None:
            beside = self.branch(x, time, context, known.depth.expand(-1, -1, 3, -1, -1), absent["depth"])
        return self.unet(x, time, context, added=added, control=control, beside=beside)

    # Weights

    def from_published(self, theirs: Mapping[str, Tensor]) -> Weights:
        """The U-Net of ``diffusers``, and the branch as a copy of it.

        Raises:
            UserError: a weight is missing or has no place here.
        """
        return self._with_branch(super().from_published(theirs))

    def taken_from(self, given: Objective) -> dict[str, Tensor] | None:
        """As of any network of latent diffusion, with the branch: its own, or a copy of the U-Net's way down."""
        if (taken := super().taken_from(given)) is None:
            return None
        if isinstance(given, DepthControl):
            return taken | {name: w for name, w in given.state_dict().items() if name.startswith("branch.")}
        return self._with_branch(taken)

    def _with_branch(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        unet = {name.removeprefix("unet."): w for name, w in weights.items() if name.startswith("unet.")}
        return {**weights, **{f"branch.{name}": w for name, w in self.branch.copied(unet).items()}}

    def depth_of(self, name: str) -> int:
        """The U-Net's layers, and the branch's beside them; text and pictures come first."""
        part, _, rest = name.partition(".")
        return self.branch.depth_of(rest) if part == "branch" else super().depth_of(name)

    # Editing

    @torch.no_grad()
    def edit(self, edit: VideoEdit) -> Tensor:
        """Edited video ``B T 3 H W`` in 0..1; see :class:`~filmstrip.protocols.VideoEditor`.

        Raises:
            UserError: the depth of the source is not known.
        """
        if edit.depth is None:
            raise UserError("a DepthControl edits by depth maps of the source: give them (--depth FILE)")
        known = self.told(self.read(edit.text, edit.text_length))
        scales = vars(self.config.guidance) | dict(edit.guidance)
        if scales["depth"]:  # without it, it is not even beside the text
            known = replace(known, depth=normalised(edit.depth))
        noise = self.noise(edit.seeds, edit.video.shape[1], self.latent_size(*edit.video.shape[-2:]))
        return self.pixels(self.denoise(known, noise, scales, edit.sampling, seeds=edit.seeds))


def normalised(depth: Tensor) -> Tensor:
    """Depth maps ``B T 1 H W`` of any unit in 0..1, 0 the farthest and 1 the nearest of a clip; 0 if all are one."""
    maps = depth.float()
    low, high = (end(dim=(1, 2, 3, 4), keepdim=True) for end in (maps.amin, maps.amax))
    return (maps - low) / (high - low).clamp(min=1e-6)


def tiny() -> Run:
    """``editing.sdedit:tiny`` with the true depth of its scenes; trains in seconds on two CPU cores."""
    run = find("editing.sdedit:tiny")
    data = replace(
        run.data,
        synthetic=replace(run.data.synthetic, depth=True),
        reads=CaptionedDepth(max_length=run.data.reads.max_length),
    )
    own = {"dropout": DROPOUT, "guidance": DepthGuidance(), "picture_widths": (8, 16, 32)}
    return replace(run, data=data, objective=DepthControlConfig(**vars(run.objective) | own))


def scenes() -> Run:
    """Edited scenes on the latents of a run of ``tokenizers.vae_kl:scenes``, as ``editing.moca:scenes`` has them."""
    run, small = find("editing.moca:scenes"), tiny()
    assert isinstance(small.objective, DepthControlConfig)
    objective = replace(
        small.objective,
        tokenizer=run.objective.tokenizer,
        untrained_tokenizer=False,
        unet=run.objective.unet,
        diffusion=run.objective.diffusion,
        guidance=DepthGuidance(text=2.0),
        sampling=run.objective.sampling,
    )
    data = replace(small.data, synthetic=replace(run.data.synthetic, depth=True), batch_size=run.data.batch_size)
    return replace(run, data=data, objective=objective)


def text_to_video_256() -> Run:
    """MoCA's comparator: ``editing.sdedit:text_to_video_256``, frozen, and a branch of it that learns."""
    run = find("editing.sdedit:text_to_video_256")
    data = replace(run.data, reads=CaptionedDepth(max_length=run.data.reads.max_length))
    own = {"dropout": DROPOUT, "guidance": DepthGuidance(), "frozen_unet": True}
    return replace(run, data=data, objective=DepthControlConfig(**vars(run.objective) | own))

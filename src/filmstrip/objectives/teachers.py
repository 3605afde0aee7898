"""Methods that learn from frozen teachers: how these are configured, and where their weights come from."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self, cast

from torch import nn

from filmstrip.data.config import Clip
from filmstrip.errors import UserError
from filmstrip.models.aligned_encoder import AlignedArchitecture, AlignedEncoder
from filmstrip.models.frozen_networks import Tower, build_frozen
from filmstrip.models.image_tower import ImageTower, ImageTowerArchitecture
from filmstrip.models.video_transformer import FrameTransformer, TransformerArchitecture
from filmstrip.models.vit import ViT, ViTArchitecture
from filmstrip.models.vjepa import VJEPAArchitecture, VJEPAEncoder
from filmstrip.objectives.config import FrozenNetworksConfig, ObjectiveConfig
from filmstrip.objectives.targets import Teacher, TeacherFrames, TeacherNorm
from filmstrip.protocols import Grid, Objective, find_encoder
from filmstrip.settings import FREE


class EncoderOnly(Objective):
    """An encoder that others learn from; it has no loss of its own."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder


@dataclass(frozen=True, kw_only=True)
class ImageTransformerConfig(TransformerArchitecture, ObjectiveConfig):
    """An image transformer with a class token, such as MAE's."""

    def build(self) -> EncoderOnly:
        """Build the network with fresh weights."""
        return EncoderOnly(FrameTransformer(self))


@dataclass(frozen=True, kw_only=True)
class ImageTowerConfig(ImageTowerArchitecture, ObjectiveConfig):
    """The image side of a two-tower model, such as CLIP's or EVA-CLIP's."""

    def build(self) -> EncoderOnly:
        """Build the network with fresh weights."""
        return EncoderOnly(ImageTower(self))


@dataclass(frozen=True, kw_only=True)
class AlignedEncoderConfig(AlignedArchitecture, ObjectiveConfig):
    """InternVideo2's encoder of clips, alone; its tokens are read, and not its pooled output, which is frozen."""

    def build(self) -> EncoderOnly:
        """Build the network with fresh weights."""
        encoder = AlignedEncoder(self)
        encoder.pool.requires_grad_(False)
        return EncoderOnly(encoder)


@dataclass(frozen=True, kw_only=True)
class VideoTransformerConfig(ViTArchitecture, ObjectiveConfig):
    """A video transformer without a last norm, such as VideoMAE's encoder."""

    def build(self) -> EncoderOnly:
        """Build the network with fresh weights."""
        return EncoderOnly(ViT(self, final_norm=False))


@dataclass(frozen=True, kw_only=True)
class VJEPAEncoderConfig(VJEPAArchitecture, ObjectiveConfig):
    """V-JEPA's encoder, alone."""

    def build(self) -> EncoderOnly:
        """Build the network with fresh weights."""
        return EncoderOnly(VJEPAEncoder(self))


@dataclass(frozen=True, kw_only=True)
class TowerConfig(Tower, ObjectiveConfig):
    """A pretrained vision network of ``transformers``, such as CLIP's or SigLIP's tower, which is never trained."""

    def build(self) -> EncoderOnly:
        """Build the network with fresh weights."""
        return EncoderOnly(build_frozen(self))


@dataclass(frozen=True, kw_only=True)
class TaughtConfig(FrozenNetworksConfig):
    """A method with frozen teachers, which only training needs: parts ``x`` of the objective, as a
    :class:`~filmstrip.objectives.targets.Teacher` each."""

    network_kind: ClassVar[str] = "teacher"
    only_training: ClassVar[bool] = True

    untrained_teachers: bool = field(default=False, metadata=FREE)
    """Whether teachers may be untrained where no run is named: to try things out."""

    def used_teachers(self) -> tuple[str, ...]:
        """Names of the teachers that the method learns from."""
        raise TypeError(f"{type(self).__name__} does not define used_teachers()")

    def frozen_networks(self) -> tuple[str, ...]:
        """The teachers."""
        return self.used_teachers()

    def part_of(self, name: str) -> str:
        """A teacher's encoder."""
        return f"{name}.encoder"

    def for_clip(self, clip: Clip) -> Self:
        """This method for clips of another length and size, with those teachers that come from nowhere."""
        own = cast(Any, super().for_clip(clip))
        before, teachers = cast(Any, self).size, {}
        for name in self.used_teachers():
            if self.network_run(name) is not None:
                continue
            network = getattr(self, name)
            size = getattr(network, "size", before) * clip.size // before
            teachers[name] = network.for_clip(replace(clip, size=size))
        return cast(Self, replace(own, **teachers))

    def build_teacher(
        self,
        name: str,
        grid: Grid,
        *,
        num_frames: int,
        size: int,
        frames: TeacherFrames,
        normalise: TeacherNorm = "none",
    ) -> Teacher:
        """A teacher with fresh weights, whose last block's output counts.

        Raises:
            UserError: its network has no encoder, or its grid is not the student's.
        """
        encoder = find_encoder(getattr(self, name).build())
        if encoder is None:
            raise UserError(f"{type(getattr(self, name)).__name__} has no encoder to be a teacher ({name})")
        try:
            return Teacher(encoder, grid, num_frames=num_frames, size=size, frames=frames, normalise=normalise)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None


def as_encoder(
    architecture: ViTArchitecture | TransformerArchitecture | VJEPAArchitecture | Tower,
) -> ObjectiveConfig:
    """The configuration of an encoder that has such an architecture."""
    settings = {setting.name: getattr(architecture, setting.name) for setting in fields(architecture)}
    if isinstance(architecture, Tower):
        return TowerConfig(**settings)
    if isinstance(architecture, ViTArchitecture):
        return VideoTransformerConfig(**settings)
    if isinstance(architecture, VJEPAArchitecture):
        return VJEPAEncoderConfig(**settings)
    return ImageTransformerConfig(**settings | {"patch_size": architecture.tubelet[1]})

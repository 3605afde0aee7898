"""Classification by a plain chain of convolutions: what the first video networks and C3D are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from filmstrip.bounds import Count
from filmstrip.data.config import Clip
from filmstrip.models.plain_cnn import ConvLayer, PlainCNN
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.objectives.mlp_head import MLPClassification


@dataclass(frozen=True, kw_only=True)
class PlainCNNConfig(ClassificationConfig):
    """A chain of convolutions, then fully connected layers over all that is left; without ``hidden``, its mean."""

    layers: tuple[ConvLayer, ...]
    """Convolutions, in order."""
    hidden: tuple[Count, ...] = ()
    """Widths of the fully connected layers before the classes; empty pools over space and time instead."""
    num_frames: Count
    """Frames of a clip; fully connected layers fit no other number."""
    size: Count
    """Height and width of a clip, pixels."""

    def for_clip(self, clip: Clip) -> Self:
        """The same chain; a convolution over all frames stays one."""
        layers = (
            replace(layer, kernel=(clip.num_frames, *layer.kernel[1:]))
            if layer.valid_time and layer.kernel[0] == self.num_frames
            else layer
            for layer in self.layers
        )
        return replace(self, layers=tuple(layers), num_frames=clip.num_frames, size=clip.size)

    def build(self) -> Classification:
        """Build the network with fresh weights."""
        encoder = PlainCNN(self.layers)
        if not self.hidden:
            return Classification(encoder, self)
        grid = encoder.grid_of(self.num_frames, self.size)
        return MLPClassification(encoder, self, hidden=self.hidden, grid=grid)

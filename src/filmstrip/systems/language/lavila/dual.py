"""LaViLa's two towers: a transformer of clips and one of texts, at a fixed temperature."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

from torch import Tensor

from filmstrip.bounds import Count, Rate
from filmstrip.data.config import Clip
from filmstrip.models.text_transformer import TextTransformer, at_end
from filmstrip.models.video_transformer import SPACE_RESIDUAL, SpaceTimeTransformer, TransformerArchitecture
from filmstrip.nn.masks import causal
from filmstrip.objectives.contrastive import Contrastive, Pairing, TextTowerConfig, normalised, projection
from filmstrip.protocols import Objective


@dataclass(frozen=True, kw_only=True)
class LavilaConfig(TextTowerConfig):
    """A transformer of clips, one of texts read from left to right, and the dimension of their vectors."""

    vision: TransformerArchitecture
    """Tower of clips."""
    embed_dim: Count = 256
    """Dimension of the vectors that are compared."""
    loss: Literal["sigmoid", "softmax"] = "softmax"
    scale: Rate = 1 / 0.07
    """Factor of the cosines, the inverse of the temperature, which is fixed."""

    def for_clip(self, clip: Clip) -> Self:
        """With clips of that length and size."""
        return replace(self, vision=replace(self.vision, num_frames=clip.num_frames, size=clip.size))

    def build(self) -> Lavila:
        """Build the network with fresh weights."""
        return Lavila(self)


class Lavila(Pairing):
    """A :class:`~filmstrip.protocols.DualEncoder` at a fixed temperature, which texts of every source share."""

    starts_whole = True

    def __init__(self, config: LavilaConfig) -> None:
        super().__init__(config)
        self.log_scale.requires_grad_(False)
        self.encoder = SpaceTimeTransformer(
            SPACE_RESIDUAL, config.vision, time_positions=True, grows=True, norm_before=True
        )
        self.text = TextTransformer(config.text)
        self.video_head = projection(config.vision.width, config.embed_dim, bias=False)
        self.text_head = projection(config.text.width, config.embed_dim, bias=False)

    def encode_video(self, video: Tensor) -> Tensor:
        """Vectors ``B D`` of ``B T C H W`` video, of length one."""
        return normalised(self.video_head(self.encoder(video).pooled()))

    def encode_text(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Vectors ``B D`` of texts, token ids ``B L`` and their lengths ``B``, of length one."""
        return normalised(self.text_head(at_end(self.text(ids, mask=causal()), lengths)))

    def taken_from(self, other: Objective) -> Mapping[str, Tensor] | None:
        """Both towers of a CLIP; attention over time and the heads begin anew."""
        if not isinstance(other, Contrastive):
            return None
        encoder = copy.deepcopy(self.encoder)
        encoder.load_image(other.encoder.state_dict())
        towers = {"encoder": encoder.state_dict(), "text": other.text.state_dict()}
        return {f"{tower}.{name}": value for tower, state in towers.items() for name, value in state.items()}

    def at_own_length(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`~filmstrip.protocols.Grows`."""
        own = {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
        grown = {f"encoder.{name}": value for name, value in self.encoder.at_own_length(own).items()}
        return {**state, **grown}

    def depth_of(self, name: str) -> int:
        """Each tower's own layers; the heads come after the last of both."""
        part, _, rest = name.partition(".")
        if part in ("encoder", "text"):
            return getattr(self, part).depth_of(rest)
        return max(self.encoder.depth, self.text.depth) + 1

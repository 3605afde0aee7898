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
from filmstrip.models.video_transformer import (
    SPACE_RESIDUAL,
    SpaceTimeTransformer,
    TransformerArchitecture,
    as_many_frames,
)
from filmstrip.nn.masks import causal
from filmstrip.nn.patches import conv_to_linear, linear_to_conv
from filmstrip.objectives.contrastive import Contrastive, Pairing, TextTowerConfig, normalised, projection
from filmstrip.protocols import Layout, Objective

_BLOCK, _TEXT = r"visual.blocks.\1.", r"transformer.resblocks.\1."
_PUBLISHED = (
    (r"^encoder\.embed\.proj\.", "visual.patch_embed.proj."),
    (r"^encoder\.time_pos_embed$", "visual.temporal_embed"),
    (r"^encoder\.norm_before\.", "visual.ln_pre."),
    (r"^encoder\.blocks\.(\d+)\.time_norm\.", f"{_BLOCK}norm3."),
    (r"^encoder\.blocks\.(\d+)\.time_attention\.out\.", f"{_BLOCK}timeattn.proj."),
    (r"^encoder\.blocks\.(\d+)\.time_attention\.", f"{_BLOCK}timeattn."),
    (r"^encoder\.blocks\.(\d+)\.attention\.out\.", f"{_BLOCK}attn.proj."),
    (r"^encoder\.blocks\.(\d+)\.attention\.", f"{_BLOCK}attn."),
    (r"^encoder\.", "visual."),
    (r"^text\.embed\.", "token_embedding."),
    (r"^text\.pos_embed$", "positional_embedding"),
    (r"^text\.norm\.", "ln_final."),
    (r"^text\.blocks\.(\d+)\.attention\.qkv\.", f"{_TEXT}attn.in_proj_"),
    (r"^text\.blocks\.(\d+)\.attention\.out\.", f"{_TEXT}attn.out_proj."),
    (r"^text\.blocks\.(\d+)\.norm(\d)\.", rf"{_TEXT}ln_\2."),
    (r"^text\.blocks\.(\d+)\.mlp\.fc1\.", f"{_TEXT}mlp.c_fc."),
    (r"^text\.blocks\.(\d+)\.mlp\.fc2\.", f"{_TEXT}mlp.c_proj."),
    (r"^video_head\.weight$", "image_projection"),
    (r"^text_head\.weight$", "text_projection"),
    (r"^log_scale$", "logit_scale"),
)
"""Ours to theirs."""
_PATCHES = "encoder.embed.proj.weight"
_HEADS = ("video_head.weight", "text_head.weight")


class LavilaEncoder(SpaceTimeTransformer):
    """An :class:`~filmstrip.protocols.Encoder` of clips of up to its number of frames, as CLIP's of images."""

    def __init__(self, config: TransformerArchitecture) -> None:
        super().__init__(SPACE_RESIDUAL, config, time_positions=True, grows=True, norm_before=True, patch_bias=False)

    def layouts(self) -> tuple[Layout, ...]:
        """That of the authors' two towers, with CLIP's tower of texts; their classifiers and narrators have the
        same encoder."""
        return (
            Layout(
                name="lavila",
                rules=_PUBLISHED,
                after=(
                    r"(?:transformer|ln_final|token_embedding|textual|text_decoder|fc_cls|img_attn_pool\w*)\..*",
                    r"positional_embedding|img_queries|logit_scale",
                    r"(?:image|text)_projection.*",
                ),
                to_ours=self._to_ours,
                to_theirs=self._to_theirs,
            ),
        )

    def _to_ours(self, name: str, tensor: Tensor) -> Tensor:
        """Projections lie the other way; positions of frames may be more or fewer."""
        if name == _PATCHES:
            return conv_to_linear(tensor[:, :, None])
        if name == "encoder.time_pos_embed":
            return as_many_frames(tensor[0], self.grid.t)
        return tensor.T.contiguous() if name in _HEADS else tensor

    def _to_theirs(self, name: str, tensor: Tensor) -> Tensor:
        if name == _PATCHES:
            return linear_to_conv(tensor, self.patch_size)[:, :, 0].contiguous()
        if name in ("encoder.time_pos_embed", "encoder.pos_embed"):
            return tensor[None]
        if name == "encoder.cls_token":
            return tensor.view(1, 1, -1)
        if name == "log_scale":
            return tensor[0]
        return tensor.T.contiguous() if name in _HEADS else tensor


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
        self.encoder = LavilaEncoder(config.vision)
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

"""BLIP's network: one transformer of texts as encoder, as encoder of pairs, and as decoder.

Its losses are in :mod:`filmstrip.objectives.three_losses`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from filmstrip.data.config import Clip
from filmstrip.errors import UserError
from filmstrip.models.image_tower import ImageTower, ImageTowerArchitecture
from filmstrip.models.text_transformer import SelfAttention, TextTransformer
from filmstrip.nn.normalise import CLIP_MEAN, CLIP_STD
from filmstrip.objectives.three_losses import COPIED, ThreeLosses, ThreeLossesConfig
from filmstrip.systems.language.blip.in_transformers import (
    HubBlip,
    blip_in_hub,
    config_in_hub,
    from_blip,
    to_captioner,
    to_retrieval,
)
from filmstrip.weights.keymap import Weights, some

log = logging.getLogger(__name__)

_WRITER, _JUDGE = "BlipForConditionalGeneration", "BlipForImageTextRetrieval"
_LEARNT = {_WRITER: {"captioning"}, _JUDGE: {"contrast", "matching"}}
"""Models of ``transformers`` that a BLIP can be, by the losses that they need."""


@dataclass(frozen=True, kw_only=True)
class BlipConfig(ThreeLossesConfig):
    """A tower of frames, a transformer of texts that reads it, and three losses."""

    has_hub_sizes: ClassVar[bool] = True

    vision: ImageTowerArchitecture
    """Tower of frames, with a class token."""
    share_self_attention: bool = False
    """Whether the decoder has the encoder's self-attention too, instead of its own."""

    def of_hub(
        self, config: Mapping[str, Any], statistics: Mapping[str, Any] | None, source: str
    ) -> tuple[Self, int]:
        """With the sizes of a BLIP; see :meth:`ObjectiveConfig.of_hub`.

        Raises:
            UserError: the model is of another kind.
        """
        found = blip_in_hub(config, statistics or {"mean": CLIP_MEAN, "std": CLIP_STD}, source)
        return replace(self, **found._asdict()), found.vision.size

    def for_clip(self, clip: Clip) -> Self:
        """With frames of the clip's size."""
        return replace(self, vision=replace(self.vision, num_frames=clip.num_frames, size=clip.size))

    def build(self) -> Blip:
        """Build the network with fresh weights.

        Raises:
            UserError: matching is to be learnt without contrast, or frames have no class token.
        """
        self.check_losses()
        if self.vision.pool != "class":
            raise UserError("a frame is contrasted by its class token: set objective.vision.pool to class")
        return Blip(self)


class Blip(ThreeLosses):
    """See :class:`~filmstrip.objectives.three_losses.ThreeLosses`.

    What is seen of a video are the class tokens of its frames, then their patches; the mean of its class tokens is
    contrasted.
    """

    config: BlipConfig
    decoder_attention: nn.ModuleList | None

    def __init__(self, config: BlipConfig) -> None:
        architecture = replace(config.text, norm="post", cross_every=1, context_width=config.vision.width)
        encoder, text = ImageTower(config.vision), TextTransformer(architecture)
        own = None
        if not config.share_self_attention:
            own = nn.ModuleList(SelfAttention(architecture) for _ in range(config.text.depth))
        super().__init__(config, encoder=encoder, text=text, others={"decoder_attention": own})

    @property
    def judge(self) -> TextTransformer:
        """The only transformer of texts."""
        return self.text

    @property
    def writer(self) -> TextTransformer:
        """The same."""
        return self.text

    @property
    def writer_attention(self) -> Sequence[SelfAttention] | None:
        """What the decoder does not share."""
        return cast("Sequence[SelfAttention] | None", self.decoder_attention)

    def seen(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """The mean class token ``B C``, and class tokens and patches, ``B M C``."""
        found = self.encoder(video)
        assert found.summary is not None
        return found.summary.mean(dim=1), torch.cat([found.summary, found.tokens], dim=1)

    def idle(self) -> list[str]:
        """Parts that the chosen losses do not reach."""
        losses, blocks, unused = self.config.losses, range(self.config.text.depth), super().idle()
        if "captioning" not in losses and self.decoder_attention is not None:
            unused.append("decoder_attention")
        if losses == ("captioning",) and self.decoder_attention is not None:
            unused += [f"text.blocks.{i}.{part}" for i in blocks for part in ("attention", "norm1")]
        if losses == ("contrast",):
            unused += [f"text.blocks.{i}.{part}" for i in blocks for part in ("cross_attention", "norm_cross")]
        return unused

    def depth_of(self, name: str) -> int:
        """As of any; the decoder's own attention lies in the layers of texts."""
        part, _, rest = name.partition(".")
        return self.text.depth_of(f"blocks.{rest}") if part == "decoder_attention" else super().depth_of(name)

    def from_transformers(self, theirs: Mapping[str, Tensor]) -> Weights:
        """All weights from those of a ``BlipForImageTextRetrieval`` or a ``BlipForConditionalGeneration``; what these
        lack stays as it is."""
        given = from_blip(theirs, shared=self.decoder_attention is None)
        fresh = [name for name, p in self.named_parameters() if name not in given and p.requires_grad]
        if fresh := [name for name in fresh if name != "log_scale"]:
            log.warning("the released weights lack %s, which begin anew", some(fresh))
        ours = {**self.state_dict(), **given}
        for number, (name, module) in enumerate(zip(COPIED, self.copies or ())):
            ours |= {f"copies.{number}.{key}": ours[f"{name}.{key}"] for key in module.state_dict()}
        return ours

    def to_transformers(self) -> tuple[dict[str, Any], Weights]:
        """See :class:`~filmstrip.protocols.InTransformers`: the model that writes captions, if that was learnt, or
        the one for retrieval; both see one frame."""
        return self.to_transformers_as(_WRITER if "captioning" in self.config.losses else _JUDGE)

    def to_transformers_as(self, model: str) -> tuple[dict[str, Any], Weights]:
        """See :class:`~filmstrip.protocols.SeveralInTransformers`.

        Raises:
            UserError: ``transformers`` has no such BLIP, or it needs what was not learnt.
        """
        if model not in _LEARNT:
            raise UserError(f"transformers has BLIP as {' and '.join(_LEARNT)}, not as {model}")
        config = self.config
        if lacking := sorted(_LEARNT[model] - set(config.losses)):
            raise UserError(f"{model} needs {' and '.join(lacking)}, which this run did not learn (objective.losses)")
        found = HubBlip(config.vision, config.text, config.embed_dim, config.begins)
        described = config_in_hub(found, model)
        write = to_captioner if model == _WRITER else to_retrieval
        theirs = write(self.state_dict(), self.encoder.patch_size[1])
        # The head of words is the embedding, of which a file holds one.
        return described, {name: x for name, x in theirs.items() if ".cls.predictions.decoder." not in name}

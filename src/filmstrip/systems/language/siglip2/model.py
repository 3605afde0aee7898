"""SigLIP 2's objective: the sigmoid loss, the decoder's losses, and self-distillation once it has begun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from filmstrip.bounds import PositiveShare
from filmstrip.data.config import DataInfo
from filmstrip.data.kinds.regions import RegionInfo
from filmstrip.errors import UserError
from filmstrip.models.dual_encoder import layouts_of
from filmstrip.models.image_tower import ImageTowerArchitecture
from filmstrip.models.text_transformer import TextArchitecture
from filmstrip.nn.patches import NativeFrames, take
from filmstrip.nn.positions import resized_whole, sincos_table
from filmstrip.objectives.config import FrozenNetworksConfig
from filmstrip.objectives.contrastive import Contrastive, ContrastiveConfig
from filmstrip.protocols import Batch, Loss, Objective
from filmstrip.randomness import uniform
from filmstrip.settings import FREE
from filmstrip.systems.language.siglip2.decoder import CaptionDecoder, DecoderConfig
from filmstrip.systems.language.siglip2.distillation import Distillation, DistillationConfig

_TRAINING_ONLY = (r"decoder\..*", r"distillation\..*", r"curator\..*", r"steps_done")
"""Patterns of the names of what released models do without."""
_ANEW = ("distillation.", "curator.")


@dataclass(frozen=True, kw_only=True)
class SigLIP2Config(ContrastiveConfig, FrozenNetworksConfig):
    """Two towers as SigLIP's, and what learns beside them in training."""

    network_kind: ClassVar[str] = "curator"
    only_training: ClassVar[bool] = True
    takes_towers: ClassVar[bool] = True

    decoder: DecoderConfig | None = field(default_factory=DecoderConfig)
    """Decoder of captions and regions; none for the sigmoid loss alone."""
    distillation: DistillationConfig | None = None
    """Self-distillation in the last part of training; none where there is none, as with frames of any size."""
    curator: ContrastiveConfig | None = None
    """Model that chooses what is learnt from (ACID); a ``curator_run`` replaces it by its own. None for all."""
    curator_run: str | None = None
    """A run folder of two towers, or a SigLIP in the Hub's layout, that chooses what is learnt from."""
    chosen: PositiveShare = 0.5
    """Share of a batch that a curator chooses."""
    untrained_curators: bool = field(default=False, metadata=FREE)
    """Whether a curator may be untrained where no run is named: to try things out."""

    def frozen_networks(self) -> tuple[str, ...]:
        """The curator, if there is one."""
        return () if self.curator is None and self.curator_run is None else ("curator",)

    def of_towers(self, vision: ImageTowerArchitecture, text: TextArchitecture) -> SigLIP2Config:
        """The towers of a SigLIP or SigLIP 2, without what only their training has."""
        return SigLIP2Config(vision=vision, text=text, decoder=None)

    def bind(self, info: DataInfo) -> Self:
        """Make room for the vocabulary of the data.

        Raises:
            UserError: the data have no captions, or no regions where they are learnt from, or longer ones than the
                network reads.
        """
        bound = super().bind(info)
        if self.decoder is None or not self.decoder.regions:
            return bound
        if not isinstance(info, RegionInfo):
            raise UserError(
                "the decoder learns from regions: read data with regions (--data.reads regions), or learn from "
                "captions alone (--objective.decoder.no-regions)"
            )
        if info.phrase_length > self.decoder.max_phrase:
            raise UserError(
                f"phrases of {info.phrase_length} tokens are longer than the decoder's {self.decoder.max_phrase}: "
                "lower data.reads.phrase_length, or raise objective.decoder.max_phrase"
            )
        return bound

    def build(self) -> SigLIP2:
        """Build the network with fresh weights.

        Raises:
            UserError: local views are no whole patches, or the losses are not SigLIP's.
        """
        if self.loss != "sigmoid":
            raise UserError("SigLIP 2 learns by the sigmoid loss: leave out objective.loss")
        _, patch, _ = self.vision.tubelet
        if self.distillation is not None and self.distillation.crop_size % patch:
            raise UserError(
                f"local views of {self.distillation.crop_size} pixels are no whole patches of {patch}: set "
                "objective.distillation.crop_size to a multiple"
            )
        return SigLIP2(self)


class SigLIP2(Contrastive):
    """Two towers that learn beside a decoder and, in the end, from a teacher; both are left out of what is exported.

    ``locate`` is what the decoder can say after training (:class:`~filmstrip.protocols.Refers`).
    """

    requires = ("video", "text", "text_length", "index", "seed")

    def __init__(self, config: SigLIP2Config) -> None:
        patch = config.vision.tubelet
        layouts = (*layouts_of("siglip", patch), *layouts_of("siglip2", patch))
        layouts = tuple(replace(layout, absent=_TRAINING_ONLY) for layout in layouts)
        super().__init__(config, pool="last", causal_text=False, layouts=layouts, resizes=True)
        width = config.vision.width
        has_decoder, learns = config.decoder is not None, config.distillation is not None
        self.decoder = CaptionDecoder(config.decoder, config.text, width) if has_decoder else None
        self.distillation = Distillation(config.distillation, self.encoder) if learns else None
        self.curator = None if config.curator is None else config.curator.build().requires_grad_(False).eval()
        self.chosen = config.chosen
        self.decoder_weight = config.decoder.weight if has_decoder else 0.0
        self.regions = has_decoder and config.decoder.regions
        self.after = config.distillation.after if learns else None
        if learns:
            self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))
            self.register_load_state_dict_post_hook(lambda module, _: module._begin(int(module.steps_done)))
            self._begin(0)

    def train(self, mode: bool = True) -> Self:
        """As any module; a curator stays in evaluation."""
        super().train(mode)
        if self.curator is not None:
            self.curator.eval()
        return self

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The sigmoid loss, that of the decoder, and those of self-distillation once it has begun."""
        if self.curator is not None:
            batch = self.curated(batch)
        video, frames = batch["video"], NativeFrames.of(batch)
        tokens, valid, pooled = self._seen(video, frames)
        total, metrics = self.contrast(self.to_vectors(pooled), batch)
        metrics = {"loss_sigmoid": total.detach(), **metrics}
        if self.decoder is not None:
            for name, loss in self._written(tokens, valid, batch).items():
                total, metrics[f"loss_{name}"] = total + self.decoder_weight * loss, loss.detach()
        if self.distillation is not None and self._distils:
            if frames is not None:
                raise ValueError("self-distillation needs frames of one size: set objective.distillation to none")
            how = self.distillation.config
            consistency, predicted = self.distillation.losses(self.encoder, video, batch["seed"])
            total = total + how.weight * (how.consistency * consistency + how.prediction * predicted)
            metrics |= {"loss_consistency": consistency.detach(), "loss_masked": predicted.detach()}
        return Loss(total, metrics)

    def _seen(self, video: Tensor, frames: NativeFrames | None) -> tuple[Tensor, Tensor | None, Tensor]:
        """Tokens of each frame ``B T N D``, which of them are no padding (``B N``), and the mean over frames."""
        if frames is None:
            features = self.encoder(video)
            return features.tokens.unflatten(1, (features.grid.t, -1)), None, features.pooled()
        native = self.encoder.native(video, frames)
        return native.tokens, native.valid, native.summary.mean(dim=1)

    def _written(self, tokens: Tensor, valid: Tensor | None, batch: Batch) -> dict[str, Tensor]:
        """The losses of the decoder."""
        seeds, steps = batch["seed"], tokens.shape[1]
        context = tokens
        if steps > 1:  # frames alone do not tell what comes first
            table = sincos_table(steps, tokens.shape[-1]).to(tokens.device)
            context = tokens + table[:, None].to(tokens.dtype)
        every = None if valid is None else valid.repeat(1, steps)
        parallel = uniform(seeds, 1, "siglip2.parallel")[:, 0] < self.decoder.parallel
        losses = {
            "caption": self.decoder.caption_loss(
                batch["text"], batch["text_length"], context.flatten(1, 2), parallel, every
            )
        }
        if self.regions:
            count = batch["phrase"].shape[1]
            moment = (uniform(seeds, count, "siglip2.frame") * steps).long()
            boxes = take(batch["boxes"].flatten(0, 1), moment.flatten()[:, None])[:, 0]
            frame = F.one_hot(moment, steps).to(tokens.dtype)
            shown = (boxes[:, 2:] - boxes[:, :2]).amin(dim=1) > 0
            referring, grounded = self.decoder.region_losses(
                boxes,
                batch["phrase"].flatten(0, 1),
                batch["phrase_length"].flatten() * shown,
                torch.einsum("bmt,btnd->bmnd", frame, tokens).flatten(0, 1),
                None if valid is None else valid.repeat_interleave(count, dim=0),
            )
            losses |= {"referring": referring, "grounded": grounded}
        return losses

    @torch.no_grad()
    def locate(self, video: Tensor, phrase: Tensor, lengths: Tensor, frames: NativeFrames | None = None) -> Tensor:
        """See :class:`~filmstrip.protocols.Refers`.

        Raises:
            UserError: the decoder learnt from no regions, or there is none.
        """
        if not self.regions:
            raise UserError("this SigLIP 2 has no decoder that learnt from regions, so it finds none")
        tokens, valid, _ = self._seen(video, frames)
        steps, count = tokens.shape[1], phrase.shape[1]
        context = rearrange(tokens[:, None].expand(-1, count, -1, -1, -1), "b m t n d -> (b m t) n d")
        if valid is not None:
            valid = valid.repeat_interleave(count * steps, dim=0)
        ids = phrase.flatten(0, 1).repeat_interleave(steps, dim=0)
        found = self.decoder.locate(ids, lengths.flatten().repeat_interleave(steps), context, valid)
        return rearrange(found, "(b m t) four -> b m t four", m=count, t=steps)

    @torch.no_grad()
    def curated(self, batch: Batch) -> Batch:
        """The share of a batch from which there is most to learn (ACID): pairs that the curator believes in, and of
        which the student is unsure."""
        frames = NativeFrames.of(batch)
        logits = []
        for model in (self.curator, self):
            video = model.encode_video(batch["video"], *(() if frames is None else (frames,)))
            text = model.encode_text(batch["text"], batch["text_length"])
            logits.append((video * text).sum(dim=1) * model.log_scale.exp() + model.bias)
        worth = curation_scores(*logits)
        kept = worth.topk(max(1, round(self.chosen * len(worth)))).indices.sort().values
        return {key: value[kept] for key, value in batch.items() if isinstance(value, Tensor)}

    def after_step(self, step: int) -> None:
        """Move the teacher; it begins as the image tower is when self-distillation begins."""
        super().after_step(step)
        if self.distillation is None:
            return
        if step >= self.after:
            self.distillation.move(self.encoder, whole=step <= max(1, self.after))
        self.steps_done.fill_(step)
        self._begin(step)

    def taken_from(self, other: Objective) -> Mapping[str, Tensor] | None:
        """The towers of a SigLIP or SigLIP 2, whose positions are interpolated for frames of another size, and a
        decoder like this one's; the teacher begins anew."""
        if not isinstance(other, Contrastive) or other.bias is None:
            return None
        own = self.state_dict()
        given = {name: x for name, x in other.state_dict().items() if name in own and name != "steps_done"}
        grids = [(each.encoder.grid.h, each.encoder.grid.w) for each in (other, self)]
        given["encoder.pos_embed"] = resized_whole(given["encoder.pos_embed"], *grids)
        decoder = [name for name in given if name.startswith("decoder.")]
        unlike = any(given[name].shape != own[name].shape for name in decoder)
        return {name: x for name, x in given.items() if not (name.startswith(_ANEW) or (unlike and name in decoder))}

    def started(self) -> None:
        """The teacher begins as the tower, and steps are counted anew."""
        if self.distillation is not None:
            self.distillation.move(self.encoder, whole=True)
            self.steps_done.zero_()
            self._begin(0)

    def _begin(self, steps_done: int) -> None:
        self._distils = steps_done >= self.after


def curation_scores(curator: Tensor, student: Tensor) -> Tensor:
    """What there is to learn from pairs, by their logits: ``sigmoid(curator) * H(sigmoid(student))``, nats."""
    entropy = F.softplus(student) - student * student.sigmoid()
    return curator.sigmoid() * entropy

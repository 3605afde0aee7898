"""The decoder of SigLIP 2's training: it captions and writes boxes as tokens (LocCa, Wan et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Count, Share, Weight
from filmstrip.models.text_transformer import TextArchitecture, TextTransformer
from filmstrip.nn.masks import Mask, causal, present, readable
from filmstrip.objectives.language import averaged, token_losses
from filmstrip.objectives.matching import valid_tokens


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A decoder like the tower of texts, with cross-attention to the tokens of patches in every layer."""

    depth: Count = 3
    """Number of layers."""
    bins: Count = 1000
    """Number of tokens for a coordinate of a box, each a step from one edge of the frame to the other."""
    max_phrase: Count = 32
    """Maximum number of token ids of a region's phrase."""
    parallel: Share = 0.5
    """Share of the captions whose tokens are predicted all at once, from nothing but their places."""
    regions: bool = True
    """Whether it also learns from regions: their boxes from their phrases, and their phrases from their boxes."""
    weight: Weight = 1.0
    """Factor of the sum of its losses, beside the sigmoid loss."""


class CaptionDecoder(nn.Module):
    """Predicts the tokens of captions, phrases and boxes from visual tokens ``B N C``.

    Its vocabulary is the texts', then a mask, the starts of the three tasks, what stands between a phrase and its
    box, and the bins of coordinates. The table of embeddings is that of the output as well.
    """

    def __init__(self, config: DecoderConfig, text: TextArchitecture, visual_width: int) -> None:
        super().__init__()
        self.bins, self.parallel = config.bins, config.parallel
        self.mask_id = text.vocab_size
        self.caption_id, self.refer_id, self.describe_id, self.between_id = (self.mask_id + i for i in range(1, 5))
        self.first_bin = self.mask_id + 5
        self.text = TextTransformer(
            replace(
                text,
                vocab_size=self.first_bin + config.bins,
                depth=config.depth,
                max_length=max(text.max_length, config.max_phrase + 5),
                cross_every=1,
                context_width=visual_width,
            )
        )

    def caption_loss(
        self, ids: Tensor, lengths: Tensor, context: Tensor, parallel: Tensor, readable_tokens: Tensor | None = None
    ) -> Tensor:
        """Nats per token of captions, ids ``B L`` of so many (``B``): of those that are ``parallel`` (``B`` bool) no
        token is seen, of the others those before."""
        start = torch.full_like(ids[:, :1], self.caption_id)
        before = torch.cat([start, ids[:, :-1]], dim=1)
        before = torch.where(parallel[:, None], self.mask_id, before)
        mask = Mask(lambda b, h, q, k: parallel[b] | (k <= q), batch=len(ids))
        logits = self._logits(before, mask, context, readable_tokens)
        learnt = valid_tokens(ids, lengths)
        return averaged(token_losses(logits, ids, learnt), learnt, "tokens")

    def region_losses(
        self,
        boxes: Tensor,
        phrase: Tensor,
        lengths: Tensor,
        context: Tensor,
        readable_tokens: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Nats per token of boxes (``R 4``) given their phrases (ids ``R P``), and of phrases given their boxes.

        Regions of ``lengths`` (``R``) 0 are padding.
        """
        corners = self.to_ids(boxes)
        there = valid_tokens(phrase, lengths)
        given = (lengths > 0)[:, None].expand(-1, 4)
        nothing, box = torch.zeros_like(there), torch.zeros_like(given)
        between = torch.full_like(corners[:, :1], self.between_id), given[:, :1], box[:, :1]
        referring = self._task(self.refer_id, (phrase, there, nothing), between, (corners, given, given))
        grounded = self._task(self.describe_id, (corners, given, box), between, (phrase, there, there))
        ids, valid, learnt = (torch.cat(parts) for parts in zip(referring, grounded))
        if readable_tokens is not None:
            readable_tokens = readable_tokens.repeat(2, 1)
        logits = self._logits(
            ids[:, :-1], causal() & present(valid[:, :-1]), context.repeat(2, 1, 1), readable_tokens
        )
        learnt = learnt[:, 1:]
        losses = token_losses(logits, ids[:, 1:], learnt)
        (one, other), (of_one, of_other) = losses.chunk(2), learnt.chunk(2)
        return averaged(one, of_one, "tokens"), averaged(other, of_other, "tokens")

    @torch.no_grad()
    def locate(
        self, phrase: Tensor, lengths: Tensor, context: Tensor, readable_tokens: Tensor | None = None
    ) -> Tensor:
        """The boxes ``R 4`` of phrases (ids ``R P``), each coordinate the most probable one after those before."""
        there = valid_tokens(phrase, lengths)
        ids = F.pad(F.pad(phrase, (1, 0), value=self.refer_id), (0, 1), value=self.between_id)
        valid = F.pad(there, (1, 1), value=True)
        for _ in range(4):
            logits = self._logits(ids, causal() & present(valid), context, readable_tokens)[:, -1]
            chosen = logits[:, self.first_bin :].argmax(dim=1, keepdim=True)
            ids, valid = torch.cat([ids, self.first_bin + chosen], dim=1), F.pad(valid, (0, 1), value=True)
        return (ids[:, -4:] - self.first_bin + 0.5) / self.bins

    def to_ids(self, boxes: Tensor) -> Tensor:
        """The ids of coordinates from 0 to 1."""
        return self.first_bin + (boxes * self.bins).long().clamp(0, self.bins - 1)

    def _task(self, start: int, *parts: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """A task's start and then parts: ids, whether each is no padding, and whether it is learnt."""
        ids, valid, learnt = (torch.cat(each, dim=1) for each in zip(*parts))
        return (
            F.pad(ids, (1, 0), value=start),
            F.pad(valid, (1, 0), value=True),
            F.pad(learnt, (1, 0), value=False),
        )

    def _logits(self, ids: Tensor, mask: Mask, context: Tensor, readable_tokens: Tensor | None) -> Tensor:
        seen = None if readable_tokens is None else readable(readable_tokens)
        hidden = self.text(ids, mask=mask, context=context, context_mask=seen)
        return F.linear(hidden, self.text.embed.weight)

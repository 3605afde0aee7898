"""VIOLET: a video Swin and text meet in one transformer, which names masked patches and words, and matches pairs.

Frames, some of whose patches are black, go through a video Swin; a text, some of whose tokens are masked, stands
behind them in a transformer of BERT's layers. Three losses: the codes that a frozen tokenizer of images has for black
patches (masked visual tokens), masked words, and which of four texts of the batch belongs to a clip. Fu et al.,
"VIOLET: End-to-End Video-Language Transformers with Masked Visual-token Modeling", 2021. The network is
:mod:`filmstrip.models.violet`, masked patches are in :mod:`filmstrip.objectives.visual_tokens`, masked words in
:mod:`filmstrip.objectives.masked_words`.

    filmstrip train language.violet:small_webvid --data PATH --data.reads.tokenizer BERT \
        --objective.tokenizer-run RUN
    filmstrip eval RUN --protocol pair_matching --data PATH

Half of the clips have blocks of patches masked and words by chance; of the others the patches and words that the
transformer attends to most. The authors' files start a run (``--init FILE``). Every pair of a clip and a text is read
together: there are no vectors for ``filmstrip search``.

Where we deviate: other clips in the batch with the same text are no choices; padding asks nothing where attention is
added up; frames are cropped square where the paper pads them; attention weights have no dropout.

Measured here (``filmstrip claims violet_words``, "red then green", mean of three seeds): of unseen clips 85% are
matched with the right one of 12 captions, 49% where single frames are averaged; masked patches did not help.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, Rate, Share
from filmstrip.data.config import Augment, Clip, Data, DataInfo
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.evals.pair_matching import PairMatching
from filmstrip.models.text_embedding import TextEmbedding
from filmstrip.models.text_transformer import WordHead
from filmstrip.nn.initialisation import STD, init_linear
from filmstrip.objectives.contrastive import Rows, captions_of, matching
from filmstrip.objectives.language import averaged, token_losses
from filmstrip.objectives.masked_words import mask_words
from filmstrip.objectives.matching import valid_tokens
from filmstrip.objectives.visual_tokens import (
    VisualTokens,
    VisualTokensConfig,
    choose_attended,
    choose_blocks,
    in_blocks,
)
from filmstrip.protocols import Batch, Loss
from filmstrip.randomness import uniform
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant


class VioletWithText(VisualTokens):
    """A :class:`~filmstrip.protocols.Matcher`: what it sees are the Swin's tokens, with a class token a frame."""

    requires = ("video", "text", "text_length", "index", "seed")

    def __init__(self, config: VioletWithTextConfig) -> None:
        super().__init__(config, reads_text=True)
        self.config = config
        width, vocab = self.encoder.width, config.vocab_size
        self.text = TextEmbedding(
            width,
            vocab_size=vocab,
            max_length=config.max_length,
            mask_id=config.mask_id,
            dropout=config.joint_dropout,
        )
        self.match_head = nn.Sequential(
            nn.Dropout(config.joint_dropout), nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, 1)
        )
        self.words = WordHead(width, vocab, norm_eps=1e-12)
        self.word_weight = nn.Parameter(STD * torch.randn(vocab, width))
        init_linear(self.match_head, config.linear_init)

    def see(self, video: Tensor) -> Tensor:
        """See :class:`~filmstrip.protocols.Matcher`."""
        return self.encoder.visual(video)[0]

    def match(self, visual: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
        """How well texts go with what was seen, ``B``: its softmax over several texts is the chance of each."""
        return self._match(visual, self.text(ids), valid_tokens(ids, lengths))

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The sum of the three losses."""
        ids, valid = batch["text"], valid_tokens(batch["text"], batch["text_length"])
        patches, shown, chosen = self._masked(batch["video"], ids, valid, batch["seed"])
        visual, _ = self.encoder.visual(batch["video"], patches if self.config.visual_weight else None)
        text = self.text(shown)
        tokens = self.encoder.together(visual, text, valid)
        said = self.words(tokens[:, visual.shape[1] :], self.word_weight)
        words = averaged(token_losses(said, ids, chosen), chosen, "tokens")
        found, right = self._choice(visual, text, valid, batch)
        total = words + found
        metrics = {"words": words.detach(), "matching": found.detach(), "matched_right": right}
        if self.config.visual_weight:
            named, top1 = self._named(tokens[:, : visual.shape[1]], batch["video"], patches)
            total = total + self.config.visual_weight * named
            metrics |= {"visual": named.detach(), "top1": top1}
        return Loss(total, metrics)

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: the text's embedding lies before the encoder, heads behind it."""
        return 0 if name.startswith("text.") else super().depth_of(name)

    def _masked(self, video: Tensor, ids: Tensor, valid: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Masked patches ``B t h w``, the text with masked tokens, and which of its tokens are masked (``B L``)."""
        grid, mask_id = self.encoder.grid, self.text.mask_id
        always = {"mask_id": mask_id, "vocab_size": self.text.vocab_size, "shown": 0.0, "replaced": 0.0}
        shown, chosen = mask_words(ids, valid, seeds, "violet", share=self.config.attended_ratio, **always)
        blocks = choose_blocks(seeds, grid)
        if self.masking == "blocks":
            return blocks, shown, chosen
        visual, _ = self.encoder.visual(video)
        weights = self.encoder.attended_together(visual, self.text(ids), valid)
        place = torch.arange(ids.shape[1], device=ids.device)
        words = valid & (place > 0) & (place < valid.sum(dim=1, keepdim=True) - 1)
        frames = torch.ones(len(ids), grid.t, 1 + grid.h * grid.w, dtype=torch.bool, device=ids.device)
        frames[:, :, 0] = False
        may = torch.cat([frames.flatten(1), words], dim=1)
        most = choose_attended(seeds, weights.masked_fill(~may, 1e-30), self._count(ids)) & may
        patches = most[:, : visual.shape[1]].unflatten(1, (grid.t, -1))[:, :, 1:].reshape(-1, *grid)
        attended = most[:, visual.shape[1] :]
        if self.masking == "both":
            coin = in_blocks(seeds)
            patches = torch.where(coin[:, None, None, None], blocks, patches)
            attended = torch.where(coin[:, None], chosen, attended)
        return patches, torch.where(attended, mask_id, ids), attended

    def _count(self, ids: Tensor) -> int:
        """Number of tokens that attended masking masks."""
        t, h, w = self.encoder.grid
        return max(1, int((t * (1 + h * w) + ids.shape[1]) * self.config.attended_ratio))

    def _named(self, visual: Tensor, video: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of naming masked patches, and how often the likeliest code is the right one."""
        frames = visual.unflatten(1, (self.encoder.grid.t, -1))[:, :, 1:].flatten(1, 2)
        return self.named(self.head(frames).float(), self.target(video), patches.flatten(1))

    def _match(self, visual: Tensor, text: Tensor, valid: Tensor) -> Tensor:
        first = self.encoder.together(visual, text, valid)[:, visual.shape[1]]
        return self.match_head(first)[:, 0].float() * self.config.scale

    def _choice(self, visual: Tensor, text: Tensor, valid: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of choosing the text of each clip among some of the batch, and the share of right choices."""
        b = len(text)
        count = min(b, self.config.choices)
        rows = Rows(batch["text"], batch["text"], batch["index"])
        own = torch.eye(b, dtype=torch.bool, device=text.device)
        draws = uniform(batch["seed"], b, "violet.choices").masked_fill(own, 2.0)  # one's own comes first
        order = draws.topk(count, dim=1).indices.flatten()
        beside = F.embedding(order, text.flatten(1)).view(-1, *text.shape[1:])
        seen = visual.repeat_interleave(count, dim=0)
        logits = self._match(seen, beside, valid[order]).view(b, count)
        same = matching(rows, rows).gather(1, order.view(b, count))
        same[:, 0] = False
        logits = logits.masked_fill(same, float("-inf"))
        label = torch.zeros(b, dtype=torch.int64, device=text.device)
        return F.cross_entropy(logits, label), (logits.argmax(dim=1) == 0).float().mean()


@dataclass(frozen=True, kw_only=True)
class VioletWithTextConfig(VisualTokensConfig):
    """VIOLET's network with text, and its three losses."""

    vocab_size: Count
    """Number of token ids, at least; a larger vocabulary of the training data replaces it."""
    max_length: Count
    """Maximum number of tokens of a text."""
    mask_id: CountOrZero | None = None
    """Id of a masked token in the vocabulary (BERT: 103); none for one of the network's own."""
    choices: Count = 4
    """Texts among which that of a clip is chosen."""
    scale: Rate = 20.0
    """Factor of what the choice is made by, the inverse of the temperature."""
    visual_weight: Share = 1.0
    """Weight of masked visual tokens; zero leaves them out, and no patch black."""

    def bind(self, info: DataInfo) -> Self:
        """Make room for the vocabulary of the data.

        Raises:
            UserError: the data have no captions, or longer ones than the network reads.
        """
        told = captions_of(info, self.max_length, "objective.max_length")
        return replace(self, vocab_size=max(told.tokenizer.size, self.vocab_size))

    def build(self) -> VioletWithText:
        """Build the networks with fresh weights.

        Raises:
            UserError: frames are no multiple of patches, or the tokenizer has no code for each of these.
        """
        return VioletWithText(self)


def tiny() -> Run:
    """Moving shapes with captions at 64 x 64 pixels, and a tokenizer of random weights: a run for use names one."""
    visual = find("pretraining.violet:tiny").objective
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=200, num_test=16, num_frames=4, size=64, labels="form"),
            reads=Captioned(max_length=16),
            clip=Clip(num_frames=4, sampling="uniform", size=64, short_side=(64, 64)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=_with_text(visual, vocab_size=128, max_length=16),
        optim=AdamW(lr=1e-3, betas=(0.9, 0.98)),
        train=Loop(length=Steps(100)),
        evals=(PairMatching(),),
    )


def small_webvid() -> Run:
    """Swin-S and BERT's twelve layers on WebVid-2.5M and pictures of CC3M, 4 frames of a video; DALL-E's codes."""
    visual = find("pretraining.violet:small_webvid")
    return Run(
        data=Data(
            reads=Captioned(max_length=32),
            clip=visual.data.clip,
            augment=Augment(mirror=0.0),
            batch_size=48,
            num_workers=16,
        ),
        objective=_with_text(visual.objective, vocab_size=30_522, max_length=512, mask_id=103),
        optim=AdamW(lr=2e-5, betas=(0.9, 0.98), weight_decay=1e-3, schedule=Constant()),
        train=Loop(length=Epochs(5), precision="bfloat16", clip_grad=None),
        evals=(PairMatching(),),
    )


def _with_text(visual: Any, **text: Any) -> VioletWithTextConfig:
    """The visual half of a preset with text beside it."""
    names = [field.name for field in fields(visual)]
    return VioletWithTextConfig(**{name: getattr(visual, name) for name in names}, **text)

"""BLIP-2's first stage: queries learn from a frozen encoder what texts say, by three losses of one transformer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Count, Rate, ShareBelowOne
from filmstrip.data.config import Clip, DataInfo
from filmstrip.data.kinds.captioned import CaptionInfo
from filmstrip.errors import UserError
from filmstrip.models.image_tower import ImageTower, ImageTowerArchitecture
from filmstrip.models.query_transformer import QueryTransformer, QueryTransformerConfig
from filmstrip.models.text_transformer import WordHead
from filmstrip.nn.decoding import Writing, write
from filmstrip.nn.initialisation import init_normal
from filmstrip.objectives.config import FrozenPart, ObjectiveConfig
from filmstrip.objectives.contrastive import Rows, matching, softmax_loss
from filmstrip.objectives.language import averaged, token_losses
from filmstrip.objectives.matching import check_length, matching_loss, valid_tokens
from filmstrip.protocols import Batch, Loss, Objective
from filmstrip.randomness import uniform


@dataclass(frozen=True, kw_only=True)
class Blip2Config(ObjectiveConfig):
    """A frozen encoder of frames, queries beside text, and the heads of three losses."""

    vision: ImageTowerArchitecture
    """Frozen encoder of frames, whose weights the run's ``init`` names."""
    queries: QueryTransformerConfig
    """Query transformer; the width of its context is the encoder's, and its vocabulary that of the data."""
    embed_dim: Count = 256
    """Dimension of the vectors that are contrasted."""
    scale: Rate = 1 / 0.07
    """Initial factor of the cosines, the inverse of the temperature; it is learned."""
    smoothing: ShareBelowOne = 0.1
    """Label smoothing of contrast and captioning."""

    @property
    def vocab_size(self) -> int | None:
        """Number of token ids of the data; the query transformer has one more, which starts a caption."""
        return None if self.queries.vocab_size is None else self.queries.vocab_size - 1

    def bind(self, info: DataInfo) -> Self:
        """Take the vocabulary from the data.

        Raises:
            UserError: the data have no captions, or longer ones than the network reads, or they have no start.
        """
        if not isinstance(info, CaptionInfo):
            raise UserError("this method learns from captions: read data with captions (--data.reads captioned)")
        if info.max_length > self.queries.max_length:
            raise UserError(
                f"captions of {info.max_length} tokens are longer than the network's {self.queries.max_length}: "
                "lower data.reads.max_length, or raise objective.queries.max_length"
            )
        return replace(self, queries=replace(self.queries, vocab_size=info.tokenizer.size + 1))

    def for_clip(self, clip: Clip) -> Self:
        """With frames of the clip's size."""
        return replace(self, vision=replace(self.vision, num_frames=clip.num_frames, size=clip.size))

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """The encoder."""
        return {"encoder": FrozenPart("init")}

    def build(self) -> Blip2:
        """Build the network with fresh weights."""
        return Blip2(self)


class Blip2(Objective):
    """A :class:`~filmstrip.protocols.DualEncoder` whose videos have a vector for each query: the most similar counts.

    It is a :class:`~filmstrip.protocols.Matcher` and a :class:`~filmstrip.protocols.Captioner` too.

    Contrast sees queries and text apart, matching sees them together, and captioning lets text see queries and what
    was said before.
    """

    requires = ("video", "text", "text_length", "index", "seed")

    def __init__(self, config: Blip2Config) -> None:
        super().__init__()
        if config.queries.vocab_size is None:
            raise UserError("this method reads text: set objective.queries.vocab_size")
        self.config = config
        width = config.queries.width
        self.encoder = ImageTower(config.vision).requires_grad_(False).eval()
        self.visual_norm = nn.LayerNorm(self.encoder.width)
        self.bridge = QueryTransformer(replace(config.queries, context_width=self.encoder.width))
        self.video_head = nn.Linear(width, config.embed_dim)
        self.text_head = nn.Linear(width, config.embed_dim)
        self.match_head = nn.Linear(width, 2)
        for head in (self.video_head, self.text_head, self.match_head):
            init_normal(head)
        self.words = WordHead(width, config.queries.vocab_size, norm_eps=config.queries.norm_eps)
        self.log_scale = nn.Parameter(torch.full((1,), math.log(config.scale)))
        self.starts_caption = config.queries.vocab_size - 1

    def train(self, mode: bool = True) -> Self:
        """Everything but the encoder goes into training mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def see(self, video: Tensor) -> Tensor:
        """What queries read of ``B T C H W`` video: the tokens of all frames and their summaries, ``B M C``."""
        with torch.no_grad():
            seen = self.encoder(video)
        tokens = seen.tokens if seen.summary is None else torch.cat([seen.summary, seen.tokens], dim=1)
        return self.visual_norm(tokens)

    def encode_video(self, video: Tensor) -> Tensor:
        """Vectors ``B K D`` of ``B T C H W`` video, one for each query, of length one."""
        return self._video_vectors(self.see(video))

    def encode_text(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Vectors ``B D`` of texts, token ids ``B L`` and their lengths ``B``, of length one."""
        text = self.bridge(None, ids, valid=valid_tokens(ids, lengths)).text
        return F.normalize(self.text_head(text[:, 0]).float(), dim=-1)

    def similarity(self, video: Tensor, text: Tensor) -> Tensor:
        """Logits ``N M``: scaled cosines of texts and their most similar query."""
        return torch.einsum("nkd, md -> nmk", video, text).amax(dim=-1) * self.log_scale.exp()

    def match(self, visual: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
        """Log-odds ``B`` that a text belongs to what was seen (``B M C``)."""
        no, yes = self._match(visual, ids, valid_tokens(ids, lengths)).unbind(dim=-1)
        return yes - no

    def caption(
        self,
        visual: Tensor,
        prompt: Sequence[int] = (),
        *,
        end: int,
        seed: int | Tensor = 0,
        writing: Writing | None = None,
    ) -> Tensor:
        """See :class:`~filmstrip.protocols.Captioner`; without a ``writing`` the most probable tokens."""
        writing = writing or Writing()
        begun = torch.tensor([[self.starts_caption, *prompt]], device=visual.device).expand(len(visual), -1)
        check_length(begun.shape[1], writing, self.config.queries.max_length)
        seen = visual.repeat_interleave(writing.beams, dim=0)

        def next_logits(text: Tensor, rows: Tensor) -> Tensor:
            told = self.bridge(seen, text, sees="generation").text[:, -1]
            logits = self.words(told, self.bridge.embed.weight)
            return logits.index_fill(1, begun[0, :1], -torch.inf)

        seeds = torch.arange(len(visual), device=visual.device) + seed
        drawn = uniform(seeds, writing.max_tokens, "blip2.caption")
        return write(next_logits, begun, writing, end=end, uniform=drawn)

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The sum of the three losses."""
        ids, valid = batch["text"], valid_tokens(batch["text"], batch["text_length"])
        context = self.see(batch["video"])
        text = self.encode_text(ids, batch["text_length"])
        logits = self.similarity(self._video_vectors(context), text)
        rows = Rows(text, ids, batch["index"])
        same = matching(rows, rows)
        contrast = softmax_loss(logits, same, self.config.smoothing)
        similarity = logits.detach(), logits.detach().T
        found, right = matching_loss(self._match, context, ids, valid, similarity, same, batch["seed"], "blip2")
        captioning = self._captioning(context, ids, valid)
        metrics = {
            "contrast": contrast.detach(),
            "matching": found.detach(),
            "captioning": captioning.detach(),
            "matched_right": right,
        }
        return Loss(contrast + found + captioning, metrics)

    def _video_vectors(self, context: Tensor) -> Tensor:
        return F.normalize(self.video_head(self.bridge(context).queries).float(), dim=-1)

    def _match(self, context: Tensor, ids: Tensor, valid: Tensor) -> Tensor:
        """Logits ``B 2`` of no and yes: the mean over queries."""
        return self.match_head(self.bridge(context, ids, valid=valid, sees="together").queries).mean(dim=1)

    def _captioning(self, context: Tensor, ids: Tensor, valid: Tensor) -> Tensor:
        """The loss of the next token; a caption begins with a token of its own in place of the text's start."""
        begun = torch.cat([torch.full_like(ids[:, :1], self.starts_caption), ids[:, 1:]], dim=1)
        text = self.bridge(context, begun, valid=valid, sees="generation").text
        logits = self.words(text[:, :-1], self.bridge.embed.weight)
        learnt = valid[:, 1:]
        losses = token_losses(logits, ids[:, 1:], learnt, smoothing=self.config.smoothing)
        return averaged(losses, learnt, "tokens")

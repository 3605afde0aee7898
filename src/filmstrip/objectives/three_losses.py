"""Video and text that are contrasted, matched and written: BLIP's three losses (Li et al. 2022), and OmniVL's.

Contrast is with keys of momentum copies, those of the batch and of a queue of earlier ones. With several processes
the keys are those of all, in the order of the whole batch, so that the loss is that of one process.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, NotEmpty, Rate, Share, ShareBelowOne
from filmstrip.data.config import DataInfo
from filmstrip.errors import UserError
from filmstrip.models.text_transformer import SelfAttention, TextArchitecture, TextTransformer, WordHead
from filmstrip.nn.decoding import Writing, write
from filmstrip.nn.initialisation import init_normal
from filmstrip.nn.masks import causal, present
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.contrastive import Rows, captions_of, matching, normalised, softmax_loss
from filmstrip.objectives.language import averaged, token_losses
from filmstrip.objectives.matching import check_length, matching_loss, valid_tokens
from filmstrip.objectives.momentum import KeyQueue, Keys, follow
from filmstrip.protocols import Batch, EncoderModule, Loss, Objective, PassOn
from filmstrip.randomness import uniform

Part = Literal["contrast", "matching", "captioning"]
PARTS: tuple[Part, ...] = ("contrast", "matching", "captioning")
COPIED = ("encoder", "text", "video_head", "text_head")
"""Parts that contrast is made of, which have momentum copies."""
_SCALES = (1 / 0.5, 1 / 0.001)
"""Minimum and maximum of the factor of cosines: the published limits of BLIP's temperature."""


@dataclass(frozen=True, kw_only=True)
class ThreeLossesConfig(ObjectiveConfig):
    """A transformer of texts and the three losses. Methods add the network that sees."""

    text: TextArchitecture
    """Transformer of texts, with norms after each part and, where it reads what is seen, cross-attention in every
    layer. Its vocabulary is that of the data and two tokens more, which begin a caption that is written and one that
    is matched."""
    losses: Annotated[tuple[Part, ...], NotEmpty] = PARTS
    """Losses, whose sum is learnt; matching needs contrast, whose similarities choose its hard pairs."""
    embed_dim: Count = 256
    """Dimension of the vectors that are contrasted."""
    scale: Rate = 1 / 0.07
    """Initial factor of the cosines, the inverse of the temperature; it is learned."""
    momentum: Share | None = 0.995
    """Momentum of the copies that make keys and soft targets; none for neither copies nor a queue."""
    queue_size: Count = 57_600
    """Number of keys of earlier samples."""
    softness: Share = 0.4
    """Weight of the copies' similarities in the targets of contrast, beside the matching pairs."""
    soften_over: CountOrZero = 0
    """Number of steps over which that weight rises from zero."""
    smoothing: ShareBelowOne = 0.1
    """Label smoothing of captioning."""
    starts: tuple[CountOrZero, CountOrZero] | None = None
    """Ids that begin a written and a matched caption; none for the two after those of the data's tokenizer."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids of the data."""
        return min(self.begins)

    @property
    def begins(self) -> tuple[int, int]:
        """Ids that begin a written and a matched caption."""
        return self.starts or (self.text.vocab_size - 2, self.text.vocab_size - 1)

    def bind(self, info: DataInfo) -> Self:
        """Take the vocabulary from the data.

        Raises:
            UserError: the data have no captions, or longer ones than the network reads, their tokenizer has no start,
                which others take the place of, or it is not that of the weights.
        """
        words = captions_of(info, self.text.max_length, "objective.text.max_length").tokenizer
        if words.start is None:
            raise UserError(
                "captions need a start, which two other tokens take the place of: their tokenizer has none"
            )
        if self.starts is None:
            return replace(self, text=replace(self.text, vocab_size=words.size + 2))
        if words.size > self.text.vocab_size:
            raise UserError(
                f"the tokenizer has {words.size} ids, and the network {self.text.vocab_size}: give the "
                "tokenizer of its weights (--data.reads.tokenizer FOLDER)"
            )
        return self

    def check_losses(self) -> None:
        """Whether the losses can be learnt together.

        Raises:
            UserError: matching is to be learnt without contrast.
        """
        if "matching" in self.losses and "contrast" not in self.losses:
            raise UserError("matching needs contrast, which finds its hard pairs: add it to objective.losses")


class ThreeLosses(Objective):
    """A :class:`~filmstrip.protocols.DualEncoder`, a :class:`~filmstrip.protocols.Matcher` and a
    :class:`~filmstrip.protocols.Captioner`.

    Methods give the ``encoder`` of video and the transformer of texts that is contrasted (``text``), the ``others``
    by name, and say which transformers judge and write captions (:attr:`judge`, :attr:`writer`).
    """

    requires = ("video", "text", "text_length", "index", "seed")
    starts_whole = True
    config: ThreeLossesConfig
    layered: ClassVar[tuple[str, ...]] = ("encoder", "text")
    """Parts with layers of their own."""

    def __init__(
        self,
        config: ThreeLossesConfig,
        *,
        encoder: EncoderModule,
        text: TextTransformer,
        others: Mapping[str, nn.Module | None],
    ) -> None:
        super().__init__()
        self.config = config
        self.begins_caption, self.begins_match = config.begins
        self.encoder, self.text = encoder, text
        for name, module in others.items():
            self.add_module(name, module)
        width = config.text.width
        self.video_head = nn.Linear(encoder.width, config.embed_dim)
        self.text_head = nn.Linear(width, config.embed_dim)
        self.match_head = nn.Linear(width, 2)
        for head in (self.video_head, self.text_head, self.match_head):
            init_normal(head)
        self.words = WordHead(width, config.text.vocab_size, norm_eps=config.text.norm_eps)
        self.log_scale = nn.Parameter(torch.full((1,), math.log(config.scale)))
        self.copies = self.queue = None
        if config.momentum is not None and "contrast" in config.losses:
            self.copies = copy.deepcopy(self._contrasted()).requires_grad_(False).eval()
            for block in self.copies[1].blocks:  # texts alone cross nothing
                block.cross_attention = block.norm_cross = None
            self.queue = KeyQueue(config.queue_size, config.embed_dim, config.text.max_length)
        self.register_buffer("softness", torch.tensor(0.0 if config.soften_over else config.softness))
        for name in self.idle():
            self.get_submodule(name).requires_grad_(False)
        self.log_scale.requires_grad_("contrast" in config.losses)
        self._made: list[Keys] = []
        self._pass_on: PassOn | None = None
        self._processes, self._rank = 1, 0

    @property
    def judge(self) -> TextTransformer:
        """The transformer that reads a text and what is seen, to judge whether they match."""
        raise TypeError(f"{type(self).__name__} does not define judge")

    @property
    def writer(self) -> TextTransformer:
        """The transformer that reads a text from left to right and what is seen, to write on."""
        raise TypeError(f"{type(self).__name__} does not define writer")

    @property
    def writer_attention(self) -> Sequence[SelfAttention] | None:
        """Self-attention of the writer in place of its own; by default none."""
        return None

    def seen(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """What is contrasted of ``B T C H W`` video, ``B C``, and the tokens that texts read, ``B M C``."""
        raise TypeError(f"{type(self).__name__} does not define seen(video)")

    def idle(self) -> list[str]:
        """Parts that the chosen losses do not reach."""
        heads = {"contrast": ["video_head", "text_head"], "matching": ["match_head"], "captioning": ["words"]}
        return [name for loss, names in heads.items() if loss not in self.config.losses for name in names]

    def marks(self, batch: Batch) -> Tensor:
        """A number of each sample, ``B``: pairs with equal ones match. By default its index in the split."""
        return batch["index"]

    def train(self, mode: bool = True) -> Self:
        """Everything but the copies goes into training mode."""
        super().train(mode)
        if self.copies is not None:
            self.copies.eval()
        return self

    def see(self, video: Tensor) -> Tensor:
        """Tokens ``B M C`` of ``B T C H W`` video, which texts read."""
        return self.seen(video)[1]

    def encode_video(self, video: Tensor) -> Tensor:
        """Vectors ``B D`` of ``B T C H W`` video, of length one."""
        return normalised(self.video_head(self.seen(video)[0]))

    def encode_text(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Vectors ``B D`` of texts, token ids ``B L`` and their lengths ``B``, of length one."""
        return normalised(self.text_head(self.text(ids, mask=present(valid_tokens(ids, lengths)))[:, 0]))

    def similarity(self, video: Tensor, text: Tensor) -> Tensor:
        """Logits ``N M``: scaled cosines."""
        return video @ text.T * self.log_scale.exp()

    def match(self, visual: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
        """Log-odds ``B`` that a text belongs to what was seen (``B M C``)."""
        no, yes = self._judged(visual, ids, valid_tokens(ids, lengths)).unbind(dim=-1)
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
        writing, writer = writing or Writing(), self.writer
        begun = torch.tensor([[self.begins_caption, *prompt]], device=visual.device).expand(len(visual), -1)
        read = [
            None if pair is None else tuple(x.repeat_interleave(writing.beams, dim=0) for x in pair)
            for pair in writer.keys_and_values(visual)
        ]
        length = check_length(begun.shape[1], writing, self.config.text.max_length)
        caches = writer.new_caches(len(visual) * writing.beams, length)
        never = torch.tensor([self.begins_caption, self.begins_match], device=visual.device)

        def next_logits(text: Tensor, rows: Tensor) -> Tensor:
            if writing.beams > 1:
                for cache in caches:
                    cache.reorder(rows)
            new = text[:, caches[0].length :]
            told = writer(new, mask=causal(), caches=caches, read=read, own=self.writer_attention)
            return self.words(told[:, -1], writer.embed.weight).index_fill(1, never, -torch.inf)

        seeds = torch.arange(len(visual), device=visual.device) + seed
        drawn = uniform(seeds, writing.max_tokens, "blip.caption")
        return write(next_logits, begun, writing, end=end, uniform=drawn)

    def caption_logits(self, visual: Tensor, ids: Tensor) -> Tensor:
        """Logits ``B L V`` of the token after each of ``B L`` ids, the first of which is replaced by the start of a
        caption."""
        begun = _begun(ids, self.begins_caption)
        told = self.writer(begun, mask=causal(), context=visual, own=self.writer_attention)
        return self.words(told, self.writer.embed.weight)

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The sum of the losses."""
        ids, lengths = batch["text"], batch["text_length"]
        valid = valid_tokens(ids, lengths)
        pooled, visual = self.seen(batch["video"])
        losses, metrics = [], {}
        if "contrast" in self.config.losses:
            video = normalised(self.video_head(pooled))
            text = self.encode_text(ids, lengths)
            with torch.autocast(video.device.type, enabled=False):
                contrast, similarity, same = self._contrast(video, text, batch)
            losses.append(contrast)
            metrics["contrast"] = contrast.detach()
        if "matching" in self.config.losses:
            found, metrics["matched_right"] = matching_loss(
                self._judged, visual, ids, valid, similarity, same, batch["seed"], "blip"
            )
            losses.append(found)
            metrics["matching"] = found.detach()
        if "captioning" in self.config.losses:
            learnt = valid[:, 1:]
            each = token_losses(
                self.caption_logits(visual, ids[:, :-1]), ids[:, 1:], learnt, smoothing=self.config.smoothing
            )
            captioning = averaged(each, learnt, "tokens")
            losses.append(captioning)
            metrics["captioning"] = captioning.detach()
        return Loss(torch.stack(losses).sum(), metrics)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the copies, keep what they made, and make targets softer; the scale stays within its limits."""
        self.log_scale.clamp_(*map(math.log, _SCALES))
        if self.copies is None or self.queue is None:
            return
        follow(self.copies, self._contrasted(), self.config.momentum or 0.0, step)
        for keys in self._made:
            self.queue.push(keys)
        self._made.clear()
        if self.config.soften_over:
            self.softness.fill_(self.config.softness * min(1.0, step / self.config.soften_over))

    def started(self) -> None:
        """Keys of another run's data match none of this one's."""
        if self.queue is not None:
            self.queue.forget()

    def share_rows(self, pass_on: PassOn, processes: int, rank: int) -> None:
        """See :class:`~filmstrip.protocols.SharesRows`: keys, those in the queue included, are those of all."""
        self._pass_on, self._processes, self._rank = pass_on, processes, rank

    def depth_of(self, name: str) -> int:
        """Each network's own layers; heads and scale come after the last of all."""
        part, _, rest = name.partition(".")
        if part in self.layered:
            return getattr(self, part).depth_of(rest)
        return max(getattr(self, part).depth for part in self.layered) + 1

    def _contrasted(self) -> nn.ModuleList:
        return nn.ModuleList(getattr(self, name) for name in COPIED)

    def _judged(self, visual: Tensor, ids: Tensor, valid: Tensor) -> Tensor:
        """Logits ``B 2`` of no and yes."""
        begun = _begun(ids, self.begins_match)
        return self.match_head(self.judge(begun, mask=present(valid), context=visual)[:, 0])

    def _contrast(self, video: Tensor, text: Tensor, batch: Batch) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """The loss, the similarities within the batch (videos to texts, texts to videos), and which pairs match."""
        ids, marks = batch["text"], self.marks(batch)
        rows = Rows(video, ids, marks)
        same = matching(rows, rows)
        if self.copies is None or self.queue is None:
            logits = self.similarity(video, text)
            return softmax_loss(logits, same), (logits.detach(), logits.detach().T), same
        with torch.no_grad():
            own = self._keys(batch)
            made = self._of_all(own)
            if self.training:
                self._made.append(made)
            before = self.queue.keys()
            both = [torch.cat(pair) for pair in zip(made[:2], before[:2])]
            known = matching(rows, Rows(made.video, made.ids, made.index))
            width = before.ids.shape[1]
            padded = F.pad(ids, (0, width - ids.shape[1]), value=-1)
            earlier = matching(Rows(video, padded, marks), Rows(before.video, before.ids, before.index))
            right = torch.cat([known, earlier], dim=1).to(video.dtype)
            right = right / right.sum(dim=1, keepdim=True)
        losses, found, first = [], [], self._rank * len(ids)
        for vectors, key, others in ((video, own.video, both[1]), (text, own.text, both[0])):
            logits = self.similarity(vectors, others)
            with torch.no_grad():
                soft = self.similarity(key, others).softmax(dim=1)
                target = torch.lerp(right, soft, self.softness)
            losses.append(F.cross_entropy(logits, target))
            found.append(logits[:, first : first + len(ids)].detach())
        return (losses[0] + losses[1]) / 2, (found[0], found[1]), same

    def _keys(self, batch: Batch) -> Keys:
        """What the copies make of a batch."""
        assert self.copies is not None
        encoder, text, video_head, text_head = self.copies
        ids, lengths = batch["text"], batch["text_length"]
        seen = encoder(batch["video"]).summary.mean(dim=1)
        told = text(ids, mask=present(valid_tokens(ids, lengths)))[:, 0]
        return Keys(normalised(video_head(seen)), normalised(text_head(told)), ids, self.marks(batch))

    def _of_all(self, keys: Keys) -> Keys:
        """The keys of all processes, in the order of these."""
        parts = [keys]
        for _ in range(self._processes - 1):
            assert self._pass_on is not None
            parts.append(Keys(*map(self._pass_on, parts[-1])))
        if self._processes == 1:
            return keys
        # Behind a process's own lie those of the one before it, and so on.
        ordered = [parts[(self._rank - other) % self._processes] for other in range(self._processes)]
        return Keys(*(torch.cat(part) for part in zip(*ordered)))


def _begun(ids: Tensor, first: int) -> Tensor:
    return torch.cat([torch.full_like(ids[:, :1], first), ids[:, 1:]], dim=1)

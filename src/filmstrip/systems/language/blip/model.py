"""BLIP's network and losses: one transformer of texts as encoder, as encoder of pairs, and as decoder."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, NotEmpty, Rate, Share, ShareBelowOne
from filmstrip.data.config import Clip, DataInfo
from filmstrip.data.kinds.captioned import CaptionInfo
from filmstrip.errors import UserError
from filmstrip.models.image_tower import ImageTower, ImageTowerArchitecture
from filmstrip.models.text_transformer import SelfAttention, TextArchitecture, TextTransformer, WordHead
from filmstrip.nn.decoding import Writing, write
from filmstrip.nn.initialisation import init_normal
from filmstrip.nn.masks import causal, present
from filmstrip.nn.normalise import CLIP_MEAN, CLIP_STD
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.contrastive import Rows, matching, softmax_loss
from filmstrip.objectives.language import averaged, token_losses
from filmstrip.objectives.matching import check_length, matching_loss, valid_tokens
from filmstrip.objectives.momentum import KeyQueue, Keys, follow
from filmstrip.protocols import Batch, Loss, Objective, PassOn
from filmstrip.randomness import uniform
from filmstrip.systems.language.blip.in_transformers import blip_in_hub, from_blip
from filmstrip.weights.keymap import Weights, some

log = logging.getLogger(__name__)

Part = Literal["contrast", "matching", "captioning"]
PARTS: tuple[Part, ...] = ("contrast", "matching", "captioning")
_COPIED = ("encoder", "text", "video_head", "text_head")
"""Parts that contrast is made of, which have momentum copies."""
_SCALES = (1 / 0.5, 1 / 0.001)
"""Minimum and maximum of the factor of cosines: the published limits of the temperature."""


@dataclass(frozen=True, kw_only=True)
class BlipConfig(ObjectiveConfig):
    """A tower of frames, a transformer of texts that reads it, and three losses."""

    has_hub_sizes: ClassVar[bool] = True

    vision: ImageTowerArchitecture
    """Tower of frames, with a class token."""
    text: TextArchitecture
    """Transformer of texts, with norms after each part and cross-attention in every layer. Its vocabulary is that of
    the data and two tokens more, which begin a caption that is written and one that is matched."""
    losses: Annotated[tuple[Part, ...], NotEmpty] = PARTS
    """Losses, whose sum is learnt; matching needs contrast, whose similarities choose its hard pairs."""
    share_self_attention: bool = False
    """Whether the decoder has the encoder's self-attention too, instead of its own."""
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
        if not isinstance(info, CaptionInfo):
            raise UserError("this method learns from captions: read data with captions (--data.reads captioned)")
        if info.max_length > self.text.max_length:
            raise UserError(
                f"captions of {info.max_length} tokens are longer than the network's {self.text.max_length}: lower "
                "data.reads.max_length, or raise objective.text.max_length"
            )
        if info.tokenizer.start is None:
            raise UserError(
                "captions need a start, which two other tokens take the place of: their tokenizer has none"
            )
        if self.starts is None:
            return replace(self, text=replace(self.text, vocab_size=info.tokenizer.size + 2))
        if info.tokenizer.size > self.text.vocab_size:
            raise UserError(
                f"the tokenizer has {info.tokenizer.size} ids, and the network {self.text.vocab_size}: give the "
                "tokenizer of its weights (--data.reads.tokenizer FOLDER)"
            )
        return self

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
        if "matching" in self.losses and "contrast" not in self.losses:
            raise UserError("matching needs contrast, which finds its hard pairs: add it to objective.losses")
        if self.vision.pool != "class":
            raise UserError("a frame is contrasted by its class token: set objective.vision.pool to class")
        return Blip(self)


class Blip(Objective):
    """A :class:`~filmstrip.protocols.DualEncoder`, a :class:`~filmstrip.protocols.Matcher` and a
    :class:`~filmstrip.protocols.Captioner`.

    What is seen of a video are the class tokens of its frames, then their patches.
    """

    requires = ("video", "text", "text_length", "index", "seed")
    starts_whole = True

    def __init__(self, config: BlipConfig) -> None:
        super().__init__()
        self.config = config
        self.begins_caption, self.begins_match = config.begins
        architecture = replace(config.text, norm="post", cross_every=1, context_width=config.vision.width)
        self.encoder = ImageTower(config.vision)
        self.text = TextTransformer(architecture)
        width = config.text.width
        self.decoder_attention = None
        if not config.share_self_attention:
            self.decoder_attention = nn.ModuleList(SelfAttention(architecture) for _ in range(config.text.depth))
        self.video_head = nn.Linear(config.vision.width, config.embed_dim)
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
        for name in self._idle():
            self.get_submodule(name).requires_grad_(False)
        self.log_scale.requires_grad_("contrast" in config.losses)
        self._made: list[Keys] = []
        self._pass_on: PassOn | None = None
        self._processes = 1

    def train(self, mode: bool = True) -> Self:
        """Everything but the copies goes into training mode."""
        super().train(mode)
        if self.copies is not None:
            self.copies.eval()
        return self

    def see(self, video: Tensor) -> Tensor:
        """Tokens ``B M C`` of ``B T C H W`` video: the class tokens of its frames, then all patches."""
        return torch.cat(self._seen(video), dim=1)

    def encode_video(self, video: Tensor) -> Tensor:
        """Vectors ``B D`` of ``B T C H W`` video, of length one."""
        return _vectors(self.video_head, self._seen(video)[0].mean(dim=1))

    def encode_text(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Vectors ``B D`` of texts, token ids ``B L`` and their lengths ``B``, of length one."""
        return _vectors(self.text_head, self.text(ids, mask=present(valid_tokens(ids, lengths)))[:, 0])

    def similarity(self, video: Tensor, text: Tensor) -> Tensor:
        """Logits ``N M``: scaled cosines."""
        return video @ text.T * self.log_scale.exp()

    def match(self, visual: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
        """Log-odds ``B`` that a text belongs to what was seen (``B M C``)."""
        no, yes = self._judge(visual, ids, valid_tokens(ids, lengths)).unbind(dim=-1)
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
        begun = torch.tensor([[self.begins_caption, *prompt]], device=visual.device).expand(len(visual), -1)
        read = [
            None if pair is None else tuple(x.repeat_interleave(writing.beams, dim=0) for x in pair)
            for pair in self.text.keys_and_values(visual)
        ]
        length = check_length(begun.shape[1], writing, self.config.text.max_length)
        caches = self.text.new_caches(len(visual) * writing.beams, length)
        never = torch.tensor([self.begins_caption, self.begins_match], device=visual.device)

        def next_logits(text: Tensor, rows: Tensor) -> Tensor:
            if writing.beams > 1:
                for cache in caches:
                    cache.reorder(rows)
            new = text[:, caches[0].length :]
            told = self.text(new, mask=causal(), caches=caches, read=read, own=self.decoder_attention)
            return self.words(told[:, -1], self.text.embed.weight).index_fill(1, never, -torch.inf)

        seeds = torch.arange(len(visual), device=visual.device) + seed
        drawn = uniform(seeds, writing.max_tokens, "blip.caption")
        return write(next_logits, begun, writing, end=end, uniform=drawn)

    def caption_logits(self, visual: Tensor, ids: Tensor) -> Tensor:
        """Logits ``B L V`` of the token after each of ``B L`` ids, the first of which is replaced by the start of a
        caption."""
        told = self.text(
            self._begun(ids, self.begins_caption), mask=causal(), context=visual, own=self.decoder_attention
        )
        return self.words(told, self.text.embed.weight)

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The sum of the losses."""
        ids, lengths = batch["text"], batch["text_length"]
        valid = valid_tokens(ids, lengths)
        classes, patches = self._seen(batch["video"])
        visual = torch.cat([classes, patches], dim=1)
        losses, metrics = [], {}
        if "contrast" in self.config.losses:
            video = _vectors(self.video_head, classes.mean(dim=1))
            text = self.encode_text(ids, lengths)
            with torch.autocast(video.device.type, enabled=False):
                contrast, similarity, same = self._contrast(video, text, batch)
            losses.append(contrast)
            metrics["contrast"] = contrast.detach()
        if "matching" in self.config.losses:
            found, metrics["matched_right"] = matching_loss(
                self._judge, visual, ids, valid, similarity, same, batch["seed"], "blip"
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
            self.queue.push(self._of_all(keys))
        self._made.clear()
        if self.config.soften_over:
            self.softness.fill_(self.config.softness * min(1.0, step / self.config.soften_over))

    def share_rows(self, pass_on: PassOn, processes: int) -> None:
        """See :class:`~filmstrip.protocols.SharesRows`: the queues of all processes hold the keys of all."""
        self._pass_on, self._processes = pass_on, processes

    def depth_of(self, name: str) -> int:
        """Each tower's own layers; heads and scale come after the last of both."""
        part, _, rest = name.partition(".")
        if part in ("encoder", "text"):
            return getattr(self, part).depth_of(rest)
        if part == "decoder_attention":
            return self.text.depth_of(f"blocks.{rest}")
        return max(self.encoder.depth, self.text.depth) + 1

    def from_transformers(self, theirs: Mapping[str, Tensor]) -> Weights:
        """All weights from those of a ``BlipForImageTextRetrieval`` or a ``BlipForConditionalGeneration``; what these
        lack stays as it is."""
        given = from_blip(theirs, shared=self.decoder_attention is None)
        fresh = [name for name, p in self.named_parameters() if name not in given and p.requires_grad]
        if fresh := [name for name in fresh if name != "log_scale"]:
            log.warning("the released weights lack %s, which begin anew", some(fresh))
        ours = {**self.state_dict(), **given}
        for number, (name, module) in enumerate(zip(_COPIED, self.copies or ())):
            ours |= {f"copies.{number}.{key}": ours[f"{name}.{key}"] for key in module.state_dict()}
        return ours

    def _contrasted(self) -> nn.ModuleList:
        return nn.ModuleList(getattr(self, name) for name in _COPIED)

    def _idle(self) -> list[str]:
        """Parts that the chosen losses do not reach."""
        losses, blocks = self.config.losses, range(self.config.text.depth)
        idle = [] if "contrast" in losses else ["video_head", "text_head"]
        if "matching" not in losses:
            idle.append("match_head")
        if "captioning" not in losses:
            idle += ["words"] + (["decoder_attention"] if self.decoder_attention is not None else [])
        if losses == ("captioning",) and self.decoder_attention is not None:
            idle += [f"text.blocks.{i}.{part}" for i in blocks for part in ("attention", "norm1")]
        if losses == ("contrast",):
            idle += [f"text.blocks.{i}.{part}" for i in blocks for part in ("cross_attention", "norm_cross")]
        return idle

    def _seen(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Class tokens ``B T C`` and patches ``B N C``."""
        seen = self.encoder(video)
        assert seen.summary is not None
        return seen.summary, seen.tokens

    def _begun(self, ids: Tensor, first: int) -> Tensor:
        return torch.cat([torch.full_like(ids[:, :1], first), ids[:, 1:]], dim=1)

    def _judge(self, visual: Tensor, ids: Tensor, valid: Tensor) -> Tensor:
        """Logits ``B 2`` of no and yes."""
        return self.match_head(
            self.text(self._begun(ids, self.begins_match), mask=present(valid), context=visual)[:, 0]
        )

    def _contrast(self, video: Tensor, text: Tensor, batch: Batch) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """The loss, the similarities within the batch (videos to texts, texts to videos), and which pairs match."""
        ids, index = batch["text"], batch["index"]
        rows = Rows(video, ids, index)
        same = matching(rows, rows)
        if self.copies is None or self.queue is None:
            logits = self.similarity(video, text)
            return softmax_loss(logits, same), (logits.detach(), logits.detach().T), same
        with torch.no_grad():
            made = self._keys(batch)
            if self.training:
                self._made.append(made)
            before = self.queue.keys()
            both = [torch.cat(pair) for pair in zip(made[:2], before[:2])]
            width = before.ids.shape[1]
            padded = F.pad(ids, (0, width - ids.shape[1]), value=-1)
            apart = matching(Rows(video, padded, index), Rows(before.video, before.ids, before.index))
            right = torch.cat([same, apart], dim=1).to(video.dtype)
            right = right / right.sum(dim=1, keepdim=True)
        losses, found = [], []
        for own, key, others in ((video, made.video, both[1]), (text, made.text, both[0])):
            logits = self.similarity(own, others)
            with torch.no_grad():
                soft = self.similarity(key, others).softmax(dim=1)
                target = torch.lerp(right, soft, self.softness)
            losses.append(F.cross_entropy(logits, target))
            found.append(logits[:, : len(own)].detach())
        return (losses[0] + losses[1]) / 2, (found[0], found[1]), same

    def _keys(self, batch: Batch) -> Keys:
        """What the copies make of a batch."""
        assert self.copies is not None
        encoder, text, video_head, text_head = self.copies
        ids, lengths = batch["text"], batch["text_length"]
        seen = encoder(batch["video"]).summary.mean(dim=1)
        told = text(ids, mask=present(valid_tokens(ids, lengths)))[:, 0]
        return Keys(_vectors(video_head, seen), _vectors(text_head, told), ids, batch["index"])

    def _of_all(self, keys: Keys) -> Keys:
        """The keys of all processes, in one order."""
        parts = [keys]
        for _ in range(self._processes - 1):
            assert self._pass_on is not None
            parts.append(Keys(*map(self._pass_on, parts[-1])))
        whole = Keys(*(torch.cat(part) for part in zip(*parts)))
        if self._processes == 1:
            return whole
        order = whole.index.argsort(stable=True)
        return Keys(*(part[order] for part in whole))


def _vectors(head: nn.Module, x: Tensor) -> Tensor:
    """Vectors of length one, float32."""
    return F.normalize(head(x).float(), dim=-1)

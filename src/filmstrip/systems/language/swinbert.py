"""SwinBERT: captions of densely sampled frames, by one transformer over a video's tokens and words, whose attention
among the video's tokens is learnt to be sparse.

A Video Swin makes tokens of many frames; BERT reads them beside a caption of which half of the words are masked, and
names these. Words look at the video and at earlier words, the video at itself alone, as strongly as a learned table
of a weight for each pair of its tokens says; a loss makes the weights small, and so keeps those that are needed. A
caption is written word by word, each at the place of a mask. Lin et al., "SwinBERT: End-to-End Transformers with
Sparse Attention for Video Captioning", CVPR 2022. The Swin is :mod:`filmstrip.models.video_swin`.

    filmstrip train language.swinbert:msrvtt --data CAPTIONS --data.reads.tokenizer BERT --init SWINBERT.bin
    filmstrip train language.swinbert:youcook2 --data EVENTS.csv      # with start and end: dense captioning

A run starts from the authors' files, or from a run of a Video Swin. ``mask scores``, that of the paper's sizes, is
what the public code does: it takes from a score 10,000 times what the weight lacks to one. So a token sees only
itself until a weight is one but for a thousandth, and the gradient of the captions at the table is zero at its random
start, in the public code as here (measured). ``mask weights`` multiplies the weights of attention and normalises them
again: the table learns from the captions too.

Where we deviate: attention weights have no dropout; the vectors of BERT's token types, of which one is used, are part
of those of positions.

The paper's table gives CIDEr in the test of MSVD 120.6, MSR-VTT 53.8, VATEX 73.0, and in the validation of YouCook2
109 and TVC 57.0; with 32 frames 109.4 on MSVD and 104.8 on YouCook2. We measured none of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, PositiveShare, ShareBelowOne, Weight
from filmstrip.data.config import Augment, Clip, Data, DataInfo
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.errors import UserError
from filmstrip.models.video_swin import VideoSwin, VideoSwinArchitecture
from filmstrip.nn.attention import Attention, KVCache, attend
from filmstrip.nn.decoding import Writing, write
from filmstrip.nn.initialisation import STD, init_linear
from filmstrip.nn.mlp import MLP
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.contrastive import captions_of
from filmstrip.objectives.language import averaged, token_losses
from filmstrip.protocols import Batch, Layout, Loss, Objective
from filmstrip.randomness import uniform
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine, WarmupStableDecay
from filmstrip.weights.layers import fuse, unfuse

LINEAR = WarmupStableDecay(warmup=0.1, decay=0.9)
"""A rate that rises for a tenth of all steps and falls evenly in the rest."""
MaskForm = Literal["none", "weights", "scores"]
PENALTY = 10_000.0
"""What is taken from a score where a mask of the form ``scores`` is zero."""


@dataclass(frozen=True, kw_only=True)
class SwinBertConfig(VideoSwinArchitecture, ObjectiveConfig):
    """A Video Swin, a transformer over its tokens and words, and the learned mask."""

    num_frames: Count
    """Frames of a clip."""
    size: Count
    """Height and width of a clip, pixels."""
    narrow_width: Count = 512
    """Channels between the Swin's and those of the transformer over both."""
    joint_width: Count = 768
    """Channels of a token of the transformer over both."""
    joint_depth: Count = 12
    """Layers of that transformer."""
    joint_num_heads: Count = 12
    """Attention heads of a layer of that transformer."""
    vocab_size: Count
    """Number of token ids; the data say it. The network has one more, the mask."""
    start: CountOrZero = 1
    """Id that begins a caption; the data say it."""
    max_length: Count = 512
    """Maximum number of tokens of a caption."""
    mask: MaskForm = "weights"
    """Learned mask of attention among the video's tokens: what it multiplies are the ``weights``, or what it is taken
    from the ``scores``; ``none`` for full attention."""
    hard: bool = False
    """Whether the mask is cut at one half, and learns nothing more."""
    sparsity: Weight = 0.5
    """Factor of the mask's mean in the loss."""
    masked: PositiveShare = 0.5
    """Share of a caption's tokens that are masked."""
    most_masked: Count = 45
    """Maximum number of tokens that are masked."""
    dropout: ShareBelowOne = 0.1
    """Dropout rate of embeddings and of what each part of a layer adds."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """The video's tokens (t, h, w)."""
        halved = 2 ** (len(self.depths) - 1)
        t, h, w = self.patch_size
        return self.num_frames // t, self.size // (h * halved), self.size // (w * halved)

    def bind(self, info: DataInfo) -> Self:
        """Take the vocabulary from the data.

        Raises:
            UserError: the data have no captions, or longer ones than the network reads, or they have no start.
        """
        told = captions_of(info, self.max_length, "objective.max_length").tokenizer
        if told.start is None:
            raise UserError("a caption begins with the tokenizer's start of text, and this tokenizer has none")
        return replace(self, vocab_size=max(told.size, self.vocab_size), start=told.start)

    def build(self) -> SwinBert:
        """Build the network with fresh weights.

        Raises:
            UserError: clips are no multiple of what becomes one token.
        """
        return SwinBert(self)


class _Layer(nn.Module):
    """A layer of BERT, with something added to the scores of its attention."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, num_heads)
        self.norm1 = nn.LayerNorm(width, eps=1e-12)
        self.mlp = MLP(width, 4 * width)
        self.norm2 = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor, cache: KVCache | None = None) -> Tensor:
        """``B N D`` to the same; ``bias`` broadcasts to ``B H N M``, of all tokens that the cache holds too."""
        own = self.attention
        q, k, v = own.qkv(x).unflatten(2, (3, own.num_heads, own.head_dim)).permute(2, 0, 3, 1, 4)
        if cache is not None:
            k, v = cache.extend(k, v)
        read = own.out(attend(q, k, v, bias=bias).transpose(1, 2).flatten(2))
        x = self.norm1(x + self.dropout(read))
        return self.norm2(x + self.dropout(self.mlp(x)))


class CaptionedSwin(VideoSwin):
    """The Video Swin of a :class:`SwinBert`, which knows in what files the whole was released."""

    def layouts(self) -> tuple[Layout, ...]:
        """That of the authors' files, and of a Video Swin alone."""
        (swin,) = super().layouts()
        whole = Layout(
            name="SwinBERT",
            rules=_PUBLISHED,
            after=(r"fc\..*", r"learn_vid_att\..*", r"trans_encoder\..*"),
            spare=(
                *(rf"swin\.(?:backbone\.)?{pattern}" for pattern in swin.spare),
                r"swin\.cls_head\..*",
                r"trans_encoder\.bert\.pooler\..*",
                r"trans_encoder\.cls_img_feat\..*",
            ),
            to_ours=swin.to_ours,
            to_theirs=swin.to_theirs,
            unpack=_unpacked,
            pack=_packed,
        )
        return (whole, swin)


class SwinBert(Objective):
    """Names masked words of captions; one of :class:`~filmstrip.protocols.Captioner`."""

    requires = ("video", "text", "text_length", "seed")
    starts_whole = True

    def __init__(self, config: SwinBertConfig) -> None:
        super().__init__()
        side = 2 ** (len(config.depths) - 1)
        cube = (config.patch_size[0], config.patch_size[1] * side, config.patch_size[2] * side)
        if config.num_frames % cube[0] or config.size % cube[1] or config.size % cube[2]:
            raise UserError(
                f"clips of {config.num_frames} frames of {config.size} pixels make no whole tokens: {cube} frames, "
                "height and width become one"
            )
        self.config = config
        width = config.joint_width
        self.encoder = CaptionedSwin(config)
        self.narrow = nn.Linear(self.encoder.width, config.narrow_width)
        self.visual = nn.Linear(config.narrow_width, width)
        self.mask_id = config.vocab_size
        self.embed = nn.Embedding(config.vocab_size + 1, width)
        self.pos_embed = nn.Parameter(STD * torch.randn(config.max_length, width))
        self.embed_norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            _Layer(width, config.joint_num_heads, config.dropout) for _ in range(config.joint_depth)
        )
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=1e-12), nn.Linear(width, config.vocab_size)
        )
        for part in (self.narrow, self.visual, self.blocks, self.head):
            init_linear(part, config.linear_init)
        nn.init.normal_(self.embed.weight, std=STD)
        t, h, w = config.grid
        learns = config.mask != "none"
        self.mask_logits = (
            nn.Parameter(torch.randn(t * h * w, t * h * w), requires_grad=not config.hard) if learns else None
        )

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Nats per masked token, and the sparsity; logs the share of masked tokens that are named rightly."""
        ids, lengths = batch["text"], batch["text_length"]
        chosen, given = self.masked(ids, lengths, batch["seed"])
        logits = self.logits(self.see(batch["video"]), given)
        named = averaged(token_losses(logits, ids, chosen), chosen, "tokens")
        right = ((logits.detach().argmax(dim=-1) == ids) & chosen).sum() / chosen.sum().clamp(min=1)
        metrics = {"named": named.detach(), "top1": right}
        total = named
        if self.mask_logits is not None:
            sparsity = self.mask().fill_diagonal_(0.0).mean()
            total = named + self.config.sparsity * sparsity
            metrics["mask"] = sparsity.detach()
        return Loss(total, metrics)

    def mask(self) -> Tensor:
        """How strongly each of the video's tokens sees each, ``V V`` from 0 to 1; without a learned mask, ones."""
        if self.mask_logits is None:
            t, h, w = self.config.grid
            return torch.ones(t * h * w, t * h * w, device=self.pos_embed.device)
        weights = self.mask_logits.float().sigmoid()
        return (weights >= 0.5).float() if self.config.hard else weights.clone()

    def masked(self, ids: Tensor, lengths: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Which tokens of captions ``B L`` are to be named, by the clips' seeds, and what is read in their place.

        The first of a caption never is, its end may be. Of those chosen 80% are masked, 10% are random ones, and the
        rest are as they were.
        """
        draws = uniform(seeds, ids.shape[1], "swinbert.masked")
        place = torch.arange(ids.shape[1], device=ids.device)
        open_ = (place > 0) & (place < lengths[:, None])
        rank = draws.masked_fill(~open_, 2.0).argsort(dim=1).argsort(dim=1)
        count = (lengths * self.config.masked).round().clamp(min=1, max=self.config.most_masked)
        chosen = (rank < count[:, None]) & open_
        how = uniform(seeds, ids.shape[1], "swinbert.replaced")
        other = (uniform(seeds, ids.shape[1], "swinbert.other") * self.config.vocab_size).long()
        given = torch.where(how < 0.8, self.mask_id, torch.where(how < 0.9, other, ids))
        return chosen, torch.where(chosen, given, ids)

    def see(self, video: Tensor) -> Tensor:
        """The video's tokens ``B V D`` as the transformer over both reads them, of ``B T C H W`` video."""
        return self.dropout(self.visual(self.narrow(self.encoder(video).tokens)))

    def logits(self, visual: Tensor, ids: Tensor) -> Tensor:
        """Logits ``B L vocab_size`` (float32) at every place of captions ``B L``, of which some ids are the mask."""
        x = torch.cat([visual, self._words(ids, 0)], dim=1)
        count, length = visual.shape[1], ids.shape[1]
        seen = F.pad(self._among_video(), (0, length, 0, length))
        bias = seen.masked_fill(~_allowed(count, length, x.device), -PENALTY)[None, None]
        for block in self.blocks:
            x = block(x, bias)
        return self.head(x[:, count:]).float()

    def _words(self, ids: Tensor, start: int) -> Tensor:
        x = self.embed(ids) + self.pos_embed[start : start + ids.shape[1]]
        return self.dropout(self.embed_norm(x))

    def _among_video(self) -> Tensor:
        """What the learned mask adds to the scores of attention among the video's tokens, ``V V``.

        A token sees itself in any case.
        """
        if self.mask_logits is None:
            return torch.zeros_like(self.mask())
        if self.config.mask == "weights" and not self.config.hard:
            added = F.logsigmoid(self.mask_logits.float())
        else:
            added = -PENALTY * (1 - self.mask())
        return added * (1 - torch.eye(len(added), device=added.device))

    @torch.no_grad()
    def caption(
        self,
        visual: Tensor,
        prompt: Sequence[int] = (),
        *,
        end: int,
        seed: int | Tensor = 0,
        writing: Writing | None = None,
    ) -> Tensor:
        """A caption of each, ids ``B N`` behind those of ``prompt``, with ``end`` behind what was said.

        Without a ``writing`` it is the most probable words. Row ``i`` draws from ``seed + i``, or ``seed[i] + i``.

        Raises:
            UserError: the caption would be longer than the network reads.
        """
        writing = writing or Writing()
        begun = torch.tensor([[self.config.start, *prompt]], device=visual.device).expand(len(visual), -1)
        length = begun.shape[1] + writing.max_tokens
        if length > self.config.max_length:
            raise UserError(
                f"captions of {writing.max_tokens} tokens after a prompt of {begun.shape[1]} are longer than the "
                f"{self.config.max_length} tokens that the network reads"
            )
        count, seen = visual.shape[1], visual.repeat_interleave(writing.beams, dim=0)
        caches = self._new_caches(seen, length)
        self._read(seen, self._among_video()[None, None], caches)

        def next_logits(text: Tensor, rows: Tensor) -> Tensor:
            if writing.beams > 1:
                for cache in caches:
                    cache.reorder(rows)
            start = caches[0].length - count
            words = F.pad(text[:, start:], (0, 1), value=self.mask_id)
            place = torch.arange(words.shape[1], device=words.device)
            bias = torch.zeros(len(place), len(place), device=words.device).masked_fill(
                place > place[:, None], -PENALTY
            )
            x = self._read(self._words(words, start), F.pad(bias, (count + start, 0))[None, None], caches)
            for cache in caches:
                cache.rewind(cache.length - 1)  # the mask is no word
            return self.head(x[:, -1]).float()

        seeds = torch.arange(len(visual), device=visual.device) + seed
        drawn = uniform(seeds, writing.max_tokens, "swinbert.caption")
        return write(next_logits, begun, writing, end=end, uniform=drawn)

    def _new_caches(self, visual: Tensor, length: int) -> list[KVCache]:
        """Empty caches, one a layer, for the video's tokens and texts of up to ``length``."""
        room = visual.shape[1] + length
        return [
            KVCache(len(visual), a.num_heads, room, a.head_dim, dtype=visual.dtype, device=visual.device)
            for a in (block.attention for block in self.blocks)
        ]

    def _read(self, x: Tensor, bias: Tensor, caches: Sequence[KVCache]) -> Tensor:
        for block, cache in zip(self.blocks, caches):
            x = block(x, bias, cache)
        return x

    def taken_from(self, other: Objective) -> Mapping[str, Tensor] | None:
        """The Swin of a run of another method that has one; the rest begins anew."""
        given = getattr(other, "encoder", None)
        if not isinstance(given, VideoSwin):
            return None
        return {f"encoder.{name}": value for name, value in given.state_dict().items()}

    def at_own_length(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state of a network for clips of another length, with the mask's table for this one's."""
        found = dict(state)
        if self.mask_logits is not None and "mask_logits" in found:
            found["mask_logits"] = along_diagonal(found["mask_logits"], self.mask_logits.detach())
        return found

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: the Swin's, then those of the transformer over both."""
        part, _, rest = name.partition(".")
        if part == "encoder":
            return self.encoder.depth_of(rest)
        after = self.encoder.depth + 2
        if part == "blocks":
            return after + int(rest.partition(".")[0])
        return after + len(self.blocks) if part == "head" else after - 1


def along_diagonal(table: Tensor, fresh: Tensor) -> Tensor:
    """A table of ``M M`` logits for more tokens (``V V``): a copy for each run of ``M`` along the diagonal of a
    ``fresh`` one; for fewer tokens, its upper left."""
    found = fresh.clone()
    size = len(table)
    for start in range(0, len(found) - len(found) % min(size, len(found)), size):
        stop = min(start + size, len(found))
        found[start:stop, start:stop] = table[: stop - start, : stop - start]
    return found


def _allowed(count: int, length: int, device: torch.device) -> Tensor:
    """Which of ``count`` tokens of a video and ``length`` words behind them sees which: words see the video and
    earlier words, the video itself alone."""
    place = torch.arange(count + length, device=device)
    return (place < count) | ((place >= count)[:, None] & (place <= place[:, None]))


_BERT = "trans_encoder.bert."
_PUBLISHED = (
    (r"^encoder\.embed_norm\.", "swin.backbone.patch_embed.norm."),
    (r"^encoder\.embed\.", "swin.backbone.patch_embed."),
    (r"^encoder\.stages\.(.*)\.attention\.relative\.bias$", r"swin.backbone.layers.\1.attn.@"),
    (r"^encoder\.stages\.(.*)\.attention\.out\.", r"swin.backbone.layers.\1.attn.proj."),
    (r"^encoder\.stages\.(.*)\.attention\.", r"swin.backbone.layers.\1.attn."),
    (r"^encoder\.stages\.", "swin.backbone.layers."),
    (r"\.attn\.@$", ".attn.relative_position_bias_table"),
    (r"^encoder\.merges\.(\d+)\.reduce\.", r"swin.backbone.layers.\1.downsample.reduction."),
    (r"^encoder\.merges\.(\d+)\.norm\.", r"swin.backbone.layers.\1.downsample.norm."),
    (r"^encoder\.", "swin.backbone."),
    (r"^narrow\.", "fc."),
    (r"^mask_logits$", "learn_vid_att.weight"),
    (r"^visual\.", f"{_BERT}img_embedding."),
    (r"^embed\.weight$", f"{_BERT}embeddings.word_embeddings.weight"),
    (r"^pos_embed$", f"{_BERT}embeddings.position_embeddings.weight"),
    (r"^embed_norm\.", f"{_BERT}embeddings.LayerNorm."),
    (r"^blocks\.(\d+)\.attention\.qkv\.", rf"{_BERT}encoder.layer.\1.attention.self.qkv."),
    (r"^blocks\.(\d+)\.attention\.out\.", rf"{_BERT}encoder.layer.\1.attention.output.dense."),
    (r"^blocks\.(\d+)\.norm1\.", rf"{_BERT}encoder.layer.\1.attention.output.LayerNorm."),
    (r"^blocks\.(\d+)\.mlp\.fc1\.", rf"{_BERT}encoder.layer.\1.intermediate.dense."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", rf"{_BERT}encoder.layer.\1.output.dense."),
    (r"^blocks\.(\d+)\.norm2\.", rf"{_BERT}encoder.layer.\1.output.LayerNorm."),
    (r"^head\.0\.", "trans_encoder.cls.predictions.transform.dense."),
    (r"^head\.2\.", "trans_encoder.cls.predictions.transform.LayerNorm."),
    (r"^head\.3\.weight$", "trans_encoder.cls.predictions.decoder.weight"),
    (r"^head\.3\.bias$", "trans_encoder.cls.predictions.bias"),
)
"""Ours to theirs."""
_WORDS, _PLACES, _KINDS = (
    f"{_BERT}embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")
)
_TABLE = "learn_vid_att.weight"
BERT_MASK = 103
"""Id of the mask in the vocabulary of BERT's published (uncased) models, whose embedding ours is."""


def _unpacked(file: Mapping[str, Any]) -> Mapping[str, Any]:
    """One matrix of queries, keys and values; positions with the first token type; the mask's embedding last."""
    if _KINDS not in file:
        return file
    state = fuse({name: value for name, value in file.items() if name != _KINDS})
    state[_PLACES] = state[_PLACES] + file[_KINDS][0]
    words = state[_WORDS]
    mask = min(BERT_MASK, len(words) - 1)
    state[_WORDS] = torch.cat([words, words[mask : mask + 1]])
    if _TABLE in state:
        side = round(state[_TABLE].numel() ** 0.5)
        state[_TABLE] = state[_TABLE].reshape(side, side)
    return state


def _packed(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The inverse; the token types are zero then."""
    file = {**state, _WORDS: state[_WORDS][:-1]}
    file[_KINDS] = torch.zeros(2, file[_PLACES].shape[1])
    if _TABLE in file:
        file[_TABLE] = file[_TABLE].reshape(-1, 1)
    swin = {name: value for name, value in file.items() if name.startswith("swin.")}
    return unfuse({name: value for name, value in file.items() if name not in swin}) | swin


def tiny() -> Run:
    """Moving shapes with captions, eight frames of 48 x 48 pixels, all parts from scratch."""
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=800, num_test=100, num_frames=8, size=48),
            reads=Captioned(max_length=16),
            clip=Clip(num_frames=8, sampling="uniform", size=48, short_side=(48, 48)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=SwinBertConfig(
            num_frames=8,
            size=48,
            width=24,
            depths=(1, 1),
            num_heads=(2, 4),
            window=(2, 3, 3),
            patch_size=(2, 8, 8),
            linear_init="glorot",
            narrow_width=32,
            joint_width=64,
            joint_depth=2,
            joint_num_heads=4,
            vocab_size=128,
            max_length=32,
            dropout=0.0,
        ),
        optim=AdamW(lr=1e-3, weight_decay=0.01, schedule=Cosine(warmup=0.1)),
        train=Loop(length=Steps(400)),
        evals=(),
    )


def msrvtt() -> Run:
    """Swin-B of Kinetics-600 and BERT-base on MSR-VTT, 32 frames: 784 tokens of a video, a table of 0.6M weights."""
    return _run(epochs=15, accumulate=4)


def msvd() -> Run:
    """As ``msrvtt``, on MSVD."""
    return _run(epochs=15)


def vatex() -> Run:
    """As ``msrvtt``, on VATEX."""
    return _run(epochs=15)


def youcook2() -> Run:
    """As ``msrvtt``, on the events of YouCook2."""
    return _run(epochs=40, accumulate=4)


def tvc() -> Run:
    """As ``msrvtt``, on the moments of TVC, with a fifth of the weight on sparsity."""
    return _run(epochs=40, sparsity=0.1)


def msrvtt_64() -> Run:
    """64 frames: 1568 tokens of a video, the most of the paper; it may start from a run of 32."""
    run = _run(epochs=15, accumulate=4)
    objective = run.objective.for_clip(replace(run.data.clip, num_frames=64))
    return replace(run, data=replace(run.data, clip=replace(run.data.clip, num_frames=64)), objective=objective)


def _run(*, epochs: int, accumulate: int = 1, sparsity: float = 0.5) -> Run:
    """6 clips on each GPU, of which there are eight here (the public code does not say); the Swin learns at 0.05 of
    the rate."""
    swin = find("recognition.video_swin:base_k400").objective
    names = ("width", "depths", "num_heads", "window", "patch_size", "drop_path")
    return Run(
        data=Data(
            reads=Captioned(max_length=50),
            clip=Clip(num_frames=32, sampling="uniform", size=224, short_side=(224, 256)),
            augment=Augment(mirror=0.0),
            batch_size=48 * accumulate,
            num_workers=10,
        ),
        objective=SwinBertConfig(
            **{name: getattr(swin, name) for name in names},
            num_frames=32,
            size=224,
            vocab_size=30_522,
            mask="scores",
            sparsity=sparsity,
        ),
        optim=AdamW(lr=3e-4, weight_decay=0.05, rates=(("encoder", 0.05),), schedule=LINEAR),
        train=Loop(length=Epochs(epochs), precision="float16", checkpoint=True, accumulate=accumulate),
    )

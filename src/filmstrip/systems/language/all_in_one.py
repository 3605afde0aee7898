"""All-in-one: one transformer for video and text, in which some tokens of each frame roll on to the next.

An image transformer reads every frame of a clip beside the text. Before each block an eighth of a frame's tokens
comes from the frame before, and an eighth from the one behind, in a circle: attention within frames then mixes times,
without parameters or operations of its own. Frames are averaged at the end. Three losses: contrast of clips and texts
that are read apart, matching of clips and texts that are read together, and masked words. Wang et al., "All in One:
Exploring Unified Video-Language Pre-training", CVPR 2023.

    filmstrip train language.all_in_one:base --data PATH --data.reads.tokenizer BERT --init VIT
    filmstrip eval RUN --protocol retrieval --rerank 128
    filmstrip search RUN videos/ "a red ball rolls behind the cup"

``--init`` takes a ViT of the Hub, or a file of the authors' weights, whose embeddings of token types and modalities
are constants, and join positions and biases here.

Where we deviate: tokens roll in clips that are read alone too, where the authors' code rolls those beside text; they
stay in order, where that code shuffles each frame's patches anew in every pass, so that others roll; the optimal
transport of words to patches, a tenth of its loss, is left out; stochastic depth and dropout of the text's embedding
are all there is of dropout; the learning rate falls along a cosine instead of a line.

The paper reports 37.9 on MSR-VTT (recall at 1 from text to video) for B. ``filmstrip claims all_in_one_rolling`` asks
what rolling sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, Rate, Share, ShareBelowOne
from filmstrip.data.config import Augment, Clip, Data, DataInfo
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.evals.retrieval import Retrieval
from filmstrip.models.text_embedding import TextEmbedding
from filmstrip.models.text_transformer import WordHead
from filmstrip.models.video_transformer import (
    FrameTransformer,
    TransformerArchitecture,
    as_many_frames,
    with_frames,
)
from filmstrip.nn.initialisation import STD, init_linear
from filmstrip.nn.masks import present
from filmstrip.nn.patches import conv_to_linear, linear_to_conv
from filmstrip.objectives.contrastive import Pairing, PairingConfig, Rows, captions_of, matching, normalised
from filmstrip.objectives.language import averaged, token_losses
from filmstrip.objectives.masked_words import mask_words
from filmstrip.objectives.matching import similar, valid_tokens
from filmstrip.protocols import Batch, Features, Layout, Loss
from filmstrip.randomness import uniform
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine
from filmstrip.weights.keymap import Weights


def rolled(frames: Tensor, share: float) -> Tensor:
    """Frames' tokens ``B T 1+P D`` of which a ``share`` comes from the frame before, and one from the frame behind.

    They are the first and the last of a frame; the class token, which comes first, stays.
    """
    count = int(share * frames.shape[2])
    if not count:
        return frames
    cls, before, own, behind = frames.split((1, count, frames.shape[2] - 1 - 2 * count, count), dim=2)
    return torch.cat([cls, before.roll(1, dims=1), own, behind.roll(-1, dims=1)], dim=2)


class AllInOneEncoder(FrameTransformer):
    """An :class:`~filmstrip.protocols.Encoder` of clips of up to its number of frames, which reads text as well."""

    def __init__(self, config: AllInOneConfig) -> None:
        super().__init__(config)
        self.share = config.roll_share
        self.time_pos_embed = nn.Parameter(torch.zeros(self.grid.t, config.width))

    def embedded(self, video: Tensor) -> Tensor:
        """What the first block reads of ``B T C H W`` video, ``B T 1+P D``, each frame's class token first.

        Raises:
            ValueError: the video is longer, or its frames are of another size, than the network was built for.
        """
        tokens, grid = self._tokens(video, shorter=True)
        frames = rearrange(tokens, "b (t p) d -> b t p d", t=grid.t) + self.time_pos_embed[: grid.t, None]
        cls = self.cls_token.expand(*frames.shape[:2], 1, -1).to(frames.dtype)
        return torch.cat([cls, frames], dim=2) + self.pos_embed

    def read(self, frames: Tensor | None, text: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        """Frames ``B T 1+P D``, text ``B L D`` of which some tokens are ``valid`` (``B L`` bool), or both together.

        Returns the last tokens, ``B N D``, the text's before the frames', of which there is the mean.
        """
        if frames is None:
            assert text is not None and valid is not None
            mask = present(valid)
            for block in self.blocks:
                text = block(text, mask=mask)
            return self.norm(text)
        x, length, t = frames, 0, frames.shape[1]
        mask = None
        if text is not None:
            assert valid is not None
            length = text.shape[1]
            x = torch.cat([repeat(text, "b l d -> b t l d", t=t), frames], dim=2)
            seen = torch.cat([valid, valid.new_ones(valid.shape[0], frames.shape[2])], dim=1)
            mask = present(repeat(seen, "b n -> (b t) n", t=t))
        for block in self.blocks:
            x = torch.cat([x[:, :, :length], rolled(x[:, :, length:], self.share)], dim=2)
            x = block(x.flatten(0, 1), mask=mask).unflatten(0, (-1, t))
        return self.norm(x).mean(dim=1)

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video into tokens ``B N D``; ``summary`` is the mean of the frames' class tokens."""
        x = self.embedded(video)
        t, seen = x.shape[1], []
        for block in self.blocks:
            x = block(rolled(x, self.share).flatten(0, 1)).unflatten(0, (-1, t))
            if layers:
                seen.append(x[:, :, 1:].flatten(1, 2))
        x = self.norm(x)
        return Features(x[:, :, 1:].flatten(1, 2), self.grid._replace(t=t), tuple(seen), x[:, :, :1].mean(dim=1))

    def at_own_length(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`~filmstrip.protocols.Grows`."""
        return with_frames(state, self.grid.t)

    def layouts(self) -> tuple[Layout, ...]:
        """That of the authors' checkpoints."""
        return (
            Layout(
                name="all_in_one",
                rules=_PUBLISHED,
                after=(r"text_embeddings\..*", r"(?:txt|vid)_proj\..*", r"(?:pooler|itm_score|mlm_score)\..*"),
                spare=(r".*\.position_ids", r"rank_output.*"),
                absent=("log_scale",),
                unpack=_unpacked,
                pack=_packed,
                to_ours=self._to_ours,
                to_theirs=self._to_theirs,
            ),
        )

    def _to_ours(self, name: str, tensor: Tensor) -> Tensor:
        if name == "encoder.embed.proj.weight":
            return conv_to_linear(tensor[:, :, None])
        return as_many_frames(tensor[0], self.grid.t) if name == "encoder.time_pos_embed" else tensor

    def _to_theirs(self, name: str, tensor: Tensor) -> Tensor:
        if name == "encoder.embed.proj.weight":
            return linear_to_conv(tensor, self.patch_size)[:, :, 0].contiguous()
        if name in ("encoder.time_pos_embed", "encoder.pos_embed"):
            return tensor[None]
        return tensor.view(1, 1, -1) if name == "encoder.cls_token" else tensor


_PUBLISHED = (
    (r"^encoder\.embed\.proj\.", "transformer.patch_embed.proj."),
    (r"^encoder\.time_pos_embed$", "transformer.temporal_embed"),
    (r"^encoder\.(.*)\.attention\.out\.", r"transformer.\1.attn.proj."),
    (r"^encoder\.(.*)\.attention\.", r"transformer.\1.attn."),
    (r"^encoder\.", "transformer."),
    (r"^text\.embed\.", "text_embeddings.word_embeddings."),
    (r"^text\.pos_embed$", "text_embeddings.position_embeddings.weight"),
    (r"^text\.norm\.", "text_embeddings.LayerNorm."),
    (r"^video_head\.", "vid_proj."),
    (r"^text_head\.", "txt_proj."),
    (r"^pool\.", "pooler.dense."),
    (r"^match_head\.", "itm_score.fc."),
    (r"^words\.fc\.", "mlm_score.transform.dense."),
    (r"^words\.norm\.", "mlm_score.transform.LayerNorm."),
    (r"^words\.bias$", "mlm_score.bias"),
    (r"^word_weight$", "mlm_score.decoder.weight"),
)
"""Ours to theirs."""
_TYPES, _MODALITIES = "text_embeddings.token_type_embeddings.weight", "token_type_embeddings.weight"
_CONSTANTS = (
    (_TYPES, 0, "text_embeddings.position_embeddings.weight"),
    (_MODALITIES, 0, "text_embeddings.LayerNorm.bias"),
    (_MODALITIES, 1, "transformer.pos_embed"),
)
"""Rows of their embeddings that are added to everything of a kind, and what they join."""


def _unpacked(file: Mapping[str, Any]) -> Mapping[str, Any]:
    state = {name: tensor for name, tensor in file.items() if name not in (_TYPES, _MODALITIES)}
    for constants, row, joined in _CONSTANTS:
        if constants in file and joined in state:
            state[joined] = state[joined] + file[constants][row]
    return state


def _packed(state: Mapping[str, Tensor]) -> Weights:
    """The inverse, with constants of zero."""
    width = state["transformer.norm.weight"].shape[0]
    return {**state, _TYPES: torch.zeros(2, width), _MODALITIES: torch.zeros(2, width)}


class AllInOne(Pairing):
    """A :class:`~filmstrip.protocols.DualEncoder` of what it reads apart, and a :class:`~filmstrip.protocols.Matcher`
    of what it reads together."""

    requires = ("video", "text", "text_length", "index", "seed")
    starts_rest = True

    def __init__(self, config: AllInOneConfig) -> None:
        super().__init__(config)
        self.log_scale.requires_grad_(False)
        width, vocab = config.width, config.vocab_size
        self.encoder = AllInOneEncoder(config)
        self.text = TextEmbedding(
            width,
            vocab_size=vocab,
            max_length=config.max_length,
            mask_id=config.mask_id,
            dropout=config.text_dropout,
        )
        self.video_head = nn.Linear(width, config.embed_dim)
        self.text_head = nn.Linear(width, config.embed_dim)
        self.pool = nn.Linear(width, width)
        self.match_head = nn.Linear(width, 2)
        self.words = WordHead(width, vocab, norm_eps=1e-12)
        self.word_weight = nn.Parameter(STD * torch.randn(vocab, width))
        for part in (self.video_head, self.text_head, self.pool, self.match_head):
            init_linear(part, config.linear_init)

    def encode_video(self, video: Tensor) -> Tensor:
        """Vectors ``B D`` of ``B T C H W`` video, of length one."""
        return normalised(self.video_head(self.encoder(video).pooled()))

    def encode_text(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Vectors ``B D`` of texts, token ids ``B L`` and their lengths ``B``, of length one."""
        tokens = self.encoder.read(None, self.text(ids), valid_tokens(ids, lengths))
        return normalised(self.text_head(tokens[:, 0]))

    def see(self, video: Tensor) -> Tensor:
        """See :class:`~filmstrip.protocols.Matcher`: the frames' tokens before the first block, ``B T(1+P) D``."""
        return self.encoder.embedded(video).flatten(1, 2)

    def match(self, visual: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
        """Log-odds ``B`` that a text belongs to what was seen."""
        no, yes = self._judge(self._together(visual, ids, valid_tokens(ids, lengths))).unbind(dim=-1)
        return yes - no

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The sum of the three losses."""
        contrast = super().forward(batch)
        ids, valid = batch["text"], valid_tokens(batch["text"], batch["text_length"])
        visual = self.see(batch["video"])
        found, right = self._matching(visual, ids, valid, batch)
        shown, chosen = mask_words(
            ids, valid, batch["seed"], "all_in_one", mask_id=self.text.mask_id, vocab_size=self.text.vocab_size
        )
        said = self.words(self._together(visual, shown, valid), self.word_weight)
        words = averaged(token_losses(said, ids, chosen), chosen, "tokens")
        metrics = {
            **contrast.metrics,
            "contrast": contrast.total.detach(),
            "matching": found.detach(),
            "words": words.detach(),
            "matched_right": right,
        }
        return Loss(contrast.total + found + words, metrics)

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: the encoder's; the text's embedding lies before, heads behind it."""
        part, _, rest = name.partition(".")
        if part == "encoder":
            return self.encoder.depth_of(rest)
        return 0 if part == "text" else self.encoder.depth + 1

    def _together(self, visual: Tensor, ids: Tensor, valid: Tensor) -> Tensor:
        """The text's tokens, ``B L D``, read together with what was seen."""
        frames = visual.unflatten(1, (-1, 1 + self.encoder.grid.h * self.encoder.grid.w))
        return self.encoder.read(frames, self.text(ids), valid)[:, : ids.shape[1]]

    def _judge(self, text: Tensor) -> Tensor:
        """Logits ``B 2`` of no and yes."""
        return self.match_head(self.pool(text[:, 0]).tanh()).float()

    def _matching(self, visual: Tensor, ids: Tensor, valid: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of matching, and the share of right judgements; half of the texts are beside another video."""
        rows = Rows(ids, ids, batch["index"])
        same = matching(rows, rows)
        coin, chance = uniform(batch["seed"], 2, "all_in_one.matching").unbind(dim=1)
        own = torch.arange(len(ids), device=ids.device)
        beside = torch.where(
            coin < 0.5, own, similar(torch.zeros_like(same, dtype=torch.float32), same, chance[:, None])
        )
        other = F.embedding(beside, visual.flatten(1)).view_as(visual)
        said = self._judge(self._together(other, ids, valid))
        label = same[own, beside].to(torch.int64)
        return F.cross_entropy(said, label), (said.argmax(dim=1) == label).float().mean()


@dataclass(frozen=True, kw_only=True)
class AllInOneConfig(TransformerArchitecture, PairingConfig):
    """A transformer of frames that text joins, and the heads of its losses."""

    loss: Literal["sigmoid", "softmax"] = "softmax"
    scale: Rate = 20.0
    """Factor of the cosines, the inverse of the temperature; it is not learned."""
    embed_dim: Count = 512
    """Channels of the vectors that are compared."""
    vocab_size: Count
    """Number of token ids, at least; a larger vocabulary of the training data replaces it."""
    max_length: Count
    """Maximum number of tokens of a text."""
    mask_id: CountOrZero | None = None
    """Id of a masked token in the vocabulary (BERT: 103); none for one of the network's own."""
    roll_share: Share = 0.125
    """Share of a frame's tokens that comes from the frame before, and of those from the one behind; zero for none."""
    text_dropout: ShareBelowOne = 0.0
    """Dropout rate of the text's embedding."""

    def bind(self, info: DataInfo) -> Self:
        """Make room for the vocabulary of the data.

        Raises:
            UserError: the data have no captions, or longer ones than the network reads.
        """
        told = captions_of(info, self.max_length, "objective.max_length")
        return replace(self, vocab_size=max(told.tokenizer.size, self.vocab_size))

    def build(self) -> AllInOne:
        """Build the network with fresh weights."""
        return AllInOne(self)


def tiny() -> Run:
    """Moving shapes with captions, three frames of 48 x 48 pixels; two CPU cores train it in two minutes."""
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=800, num_test=100, num_frames=3, size=48, labels="form"),
            reads=Captioned(max_length=16),
            clip=Clip(num_frames=3, sampling="uniform", size=48, short_side=(48, 48)),
            augment=Augment(mirror=0.0),
            batch_size=32,
        ),
        objective=AllInOneConfig(
            width=64,
            depth=3,
            num_heads=4,
            num_frames=3,
            size=48,
            patch_size=8,
            linear_init="glorot",
            vocab_size=128,
            max_length=16,
            embed_dim=64,
        ),
        optim=AdamW(lr=1e-3, schedule=Cosine(warmup=0.1)),
        train=Loop(length=Steps(400)),
        evals=(Retrieval(),),
    )


def ti() -> Run:
    """All-in-one-Ti: 12M parameters without the heads, as the authors count."""
    return _released(192, 3)


def s() -> Run:
    """All-in-one-S: 33M."""
    return _released(384, 6)


def base() -> Run:
    """All-in-one-B: 110M."""
    return _released(768, 12)


def _released(width: int, num_heads: int) -> Run:
    """Three frames at 224 pixels, patches of 16; WebVid-2.5M and HowTo100M in one (--data.weights)."""
    return Run(
        data=Data(
            reads=Captioned(max_length=40),
            clip=Clip(num_frames=3, sampling="segments", size=224, short_side=(224, 256)),
            augment=Augment(mirror=0.0),
            batch_size=1024,
            num_workers=16,
        ),
        objective=AllInOneConfig(
            width=width,
            depth=12,
            num_heads=num_heads,
            num_frames=3,
            size=224,
            patch_size=16,
            drop_path=0.1,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            vocab_size=30_522,
            max_length=40,
            mask_id=103,
            text_dropout=0.1,
        ),
        optim=AdamW(lr=1e-4, weight_decay=0.01, betas=(0.9, 0.98), schedule=Cosine(warmup=Steps(2_500))),
        train=Loop(length=Steps(25_000), precision="float16", clip_grad=None),
        evals=(Retrieval(),),
    )

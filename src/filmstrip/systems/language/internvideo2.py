"""InternVideo2, stage 2: the encoder of the first stage and a text encoder learn to match videos with what is said.

Four tokens in five of a clip are left out in training, at random. The rest is contrasted with the text (its first
token, after the first layers of a BERT), and read by BERT's last layers through cross-attention, which tell whether
text and clip belong together, and which words are masked. Wang et al., "InternVideo2: Scaling Foundation Models for
Multimodal Video Understanding", ECCV 2024, after its code (contrast, matching and masked words, each of weight 1).

    filmstrip train language.internvideo2:one_b --data PATH --data.reads.tokenizer BERT --init STAGE_1_RUN

The encoder is :mod:`filmstrip.models.aligned_encoder`, the text encoder :mod:`filmstrip.models.text_transformer`.
``--init`` takes a run of ``pretraining.internvideo2``, whose positions are resized to the clip, or the authors' file
of this stage. Evaluation and search see all tokens.

Where we deviate: audio and speech are not there, captions that fuse them are texts like others; images are not mixed
in; the text encoder begins anew (theirs as BERT); equal captions of a batch are no negatives; a negative is drawn by
its similarity plus 1e-4; the end of a text is not masked; the scale of cosines is learnt by its logarithm; attention
weights have no dropout. The lecture sums both directions of the contrast, the code takes their mean, and so do we.

The paper reports a recall at 1 without examples from text to video of 51.9 on MSR-VTT, 57.0 on DiDeMo and 70.4 on
VATEX (1B), and 55.9, 57.9 and 71.5 (6B). ``filmstrip claims internvideo2_stage2`` asks what leaving out tokens costs
and saves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, Rate, Share, ShareBelowOne, Weight
from filmstrip.data.config import Augment, Clip, Data, DataInfo
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.errors import UserError
from filmstrip.evals.retrieval import Retrieval
from filmstrip.models.aligned_encoder import (
    ENCODER,
    AlignedArchitecture,
    AlignedEncoder,
    as_convolution,
    as_linear,
    resized_positions,
)
from filmstrip.models.query_transformer import fused, unfused
from filmstrip.models.text_transformer import TextArchitecture, TextTransformer, WordHead
from filmstrip.nn.initialisation import init_normal
from filmstrip.nn.masks import present
from filmstrip.nn.tubelet_masking import choose_tubelets
from filmstrip.objectives.contrastive import Pairing, Rows, TextTowerConfig, captions_of, matching
from filmstrip.objectives.language import averaged, token_losses
from filmstrip.objectives.masked_words import mask_words
from filmstrip.objectives.matching import pairs_loss, similar, valid_tokens
from filmstrip.protocols import Batch, Layout, Loss, Objective
from filmstrip.randomness import uniform
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine

_LEAST_SCALE = 2.0
"""Minimum of the factor of cosines, a temperature of 0.5."""


@dataclass(frozen=True, kw_only=True)
class InternVideo2TextConfig(TextTowerConfig):
    """An encoder of clips, one of texts whose last layers read the clip, and the weights of three losses."""

    vision: AlignedArchitecture
    """Encoder of clips."""
    text: TextArchitecture
    """Encoder of texts; layers from ``cross_from`` on read the clip, whose channels replace its ``context_width``."""
    loss: Literal["sigmoid", "softmax"] = "softmax"
    """Contrastive loss; the paper's is a choice among the batch."""
    scale: Rate = 1 / 0.07
    """Initial factor of the cosines, the inverse of the temperature; it is learned."""
    max_scale: Rate | None = 1000.0
    """Maximum of the factor."""
    embed_dim: Count = 512
    """Dimension of the vectors that are contrasted."""
    mask_ratio: ShareBelowOne = 0.8
    """Share of a clip's tokens that training leaves out."""
    word_ratio: Share = 0.5
    """Probability that a token of the text is to be predicted."""
    contrast_weight: Weight = 1.0
    """Weight of the contrast."""
    matching_weight: Weight = 1.0
    """Weight of matching."""
    words_weight: Weight = 1.0
    """Weight of masked words."""
    masked_word: CountOrZero | None = None
    """Id that stands for a masked token. In training it is the tokenizer's, or one more than it has."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids of the data; there may be one more, for masked tokens."""
        return self.text.vocab_size - 1

    def bind(self, info: DataInfo) -> Self:
        """Make room for the vocabulary of the data, and take its id of masked tokens, or one more.

        Raises:
            UserError: the data have no captions, or longer ones than the network reads.
        """
        words = captions_of(info, self.text.max_length, "objective.text.max_length").tokenizer
        own = words.size if words.mask is None else words.mask
        size = max(self.text.vocab_size, words.size, own + 1)
        return replace(self, text=replace(self.text, vocab_size=size), masked_word=own)

    def for_clip(self, clip: Clip) -> Self:
        """With clips of the data's length and size."""
        return replace(self, vision=replace(self.vision, num_frames=clip.num_frames, size=clip.size))

    def build(self) -> InternVideo2Text:
        """Build the networks with fresh weights.

        Raises:
            UserError: no layer of the text encoder reads the clip, or the first one does.
        """
        return InternVideo2Text(self)


class InternVideo2Text(Pairing):
    """Two encoders, and a :class:`~filmstrip.protocols.Matcher`, which tells whether a text belongs to a video."""

    requires = ("video", "text", "text_length", "index", "seed")
    starts_whole = True

    def __init__(self, config: InternVideo2TextConfig) -> None:
        super().__init__(config)
        vision, text = config.vision, config.text
        if text.cross_every is None or not 0 < text.cross_from < text.depth:
            raise UserError(
                f"of {text.depth} layers of text those from {text.cross_from} on would read the clip (cross_every "
                f"{text.cross_every}): set objective.text.cross_every 1 and a cross_from between 1 and the last"
            )
        self.split = text.cross_from
        self.encoder = AlignedEncoder(vision)
        self.text = TextTransformer(replace(text, context_width=vision.width))
        self.video_head = nn.Linear(vision.pool_width, config.embed_dim)
        self.text_head = nn.Linear(text.width, config.embed_dim)
        self.match_head = nn.Linear(text.width, 2)
        for head in (self.video_head, self.text_head, self.match_head):
            init_normal(head)
        self.words = WordHead(text.width, text.vocab_size, norm_eps=text.norm_eps)
        self.masked_word = text.vocab_size - 1 if config.masked_word is None else config.masked_word

    def encode_video(self, video: Tensor) -> Tensor:
        """Vectors ``B D`` of ``B T C H W`` video, of length one, from all tokens."""
        return self.video_vectors(self.see(video))

    def encode_text(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Vectors ``B D`` of texts, token ids ``B L`` and their lengths ``B``, of length one."""
        return self.text_vectors(self.read(ids, valid_tokens(ids, lengths)))

    def match(self, visual: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
        """Log-odds ``B`` that a text belongs to what was seen (``B 1+N C``)."""
        valid = valid_tokens(ids, lengths)
        no, yes = self.matched(visual, self.read(ids, valid), valid).unbind(dim=-1)
        return yes - no

    def see(self, video: Tensor, visible: Tensor | None = None) -> Tensor:
        """Tokens ``B 1+N C`` of ``B T C H W`` video, or of its positions ``visible`` (``B K``): the class token, then
        patches."""
        return self.encoder.layers(video, visible, count=1)[-1]

    def video_vectors(self, context: Tensor) -> Tensor:
        """Vectors ``B D`` of length one, of a video's tokens."""
        return F.normalize(self.video_head(self.encoder.pool(context)).float(), dim=-1)

    def read(self, ids: Tensor, valid: Tensor) -> Tensor:
        """Tokens ``B L D`` of texts alone, of ids ``B L`` that are no padding where they are ``valid``."""
        return self.text(ids, mask=present(valid), depth=self.split)

    def text_vectors(self, tokens: Tensor) -> Tensor:
        """Vectors ``B D`` of length one, of texts' tokens."""
        return F.normalize(self.text_head(tokens[:, 0]).float(), dim=-1)

    def fused(self, context: Tensor, tokens: Tensor, valid: Tensor) -> Tensor:
        """Tokens ``B L D`` of texts that have read the video."""
        return self.text.fused(tokens, context, start=self.split, mask=present(valid))

    def matched(self, context: Tensor, tokens: Tensor, valid: Tensor) -> Tensor:
        """Logits ``B 2`` of no and yes."""
        return self.match_head(self.fused(context, tokens, valid)[:, 0]).float()

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The weighted sum of contrast, matching and masked words."""
        config, ids, seeds = self.config, batch["text"], batch["seed"]
        valid = valid_tokens(ids, batch["text_length"])
        context = self.see(batch["video"], self.visible(seeds))
        tokens = self.read(ids, valid)
        video, text = self.video_vectors(context), self.text_vectors(tokens)
        rows = [Rows(vectors, ids, batch["index"]) for vectors in (video, text)]
        same = matching(*rows)
        losses = {}
        with torch.autocast(video.device.type, enabled=False):
            losses["contrast"] = self._softmax(*rows) if config.loss == "softmax" else self._sigmoid(*rows)
            logits = self.similarity(video, text).detach()
        metrics = {"matched": same.gather(1, logits.argmax(dim=1, keepdim=True)).float().mean()}
        if config.matching_weight:
            videos = similar(logits.T, same.T, uniform(seeds, 1, "internvideo2.other_video"))
            texts = similar(logits, same, uniform(seeds, 1, "internvideo2.other_text"))
            losses["matching"], metrics["matched_right"] = pairs_loss(
                self.matched, context, tokens, valid, same, videos, texts
            )
        if config.words_weight:
            losses["words"] = self.word_loss(context, ids, valid, *self.masked(ids, valid, seeds))
        total = torch.stack([getattr(config, f"{name}_weight") * loss for name, loss in losses.items()]).sum()
        return Loss(total, metrics | {name: loss.detach() for name, loss in losses.items()})

    def visible(self, seeds: Tensor) -> Tensor | None:
        """Positions ``B K`` of the tokens that training sees, none for all."""
        ratio = self.config.mask_ratio
        if not ratio:
            return None
        return choose_tubelets(seeds, self.encoder.grid, "random", ratio, use="internvideo2.visible")[0]

    def masked(self, ids: Tensor, valid: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Texts with masked tokens (``B L``), and which tokens are to be predicted (``B L`` bool).

        Of these eight in ten are masked, one is any other, and one stays (Devlin et al. 2019).
        """
        size, share = self.text.embed.num_embeddings, self.config.word_ratio
        return mask_words(ids, valid, seeds, "internvideo2", mask_id=self.masked_word, vocab_size=size, share=share)

    def word_loss(self, context: Tensor, ids: Tensor, valid: Tensor, given: Tensor, wanted: Tensor) -> Tensor:
        """The mean cross-entropy of the ids that are ``wanted`` (``B L`` bool), from the texts that are ``given``."""
        said = self.words(self.fused(context, self.read(given, valid), valid), self.text.embed.weight)
        return averaged(token_losses(said, ids, wanted), wanted, "tokens")

    def after_step(self, step: int) -> None:
        """Keep the scale within its limits."""
        super().after_step(step)
        with torch.no_grad():
            self.log_scale.clamp_(min=math.log(_LEAST_SCALE))

    def depth_of(self, name: str) -> int:
        """Each encoder's own layers; heads and the scale come after the last of both."""
        part, _, rest = name.partition(".")
        if part in ("encoder", "text"):
            return getattr(self, part).depth_of(rest)
        return max(self.encoder.depth, self.text.depth) + 2

    def taken_from(self, other: Objective) -> Mapping[str, Tensor] | None:
        """The encoder of a run of the first stage, with positions for these clips."""
        given = getattr(other, "encoder", None)
        if not isinstance(given, AlignedEncoder):
            return None
        state = given.state_dict()
        state["pos_embed"] = resized_positions(state["pos_embed"], given.grid, self.encoder.grid)
        return {f"encoder.{name}": tensor for name, tensor in state.items()}

    def layouts(self) -> tuple[Layout, ...]:
        """That of the authors' training: positions of images and what aligned the first stage have no place here."""
        return (
            Layout(
                name="stage2",
                rules=_PUBLISHED,
                spare=(
                    r"vision_encoder\.(?:clip_|img_|clip_img_)pos_embed",
                    r"vision_encoder\.(?:final_)?clip_decoder\..*",
                    r"text_encoder\.bert\.embeddings\.position_ids",
                    r"text_encoder\.cls\.predictions\.decoder\..*",
                ),
                unpack=_unpacked,
                pack=_packed,
                to_ours=_to_ours,
                to_theirs=partial(_to_theirs, (1, *self.encoder.patch_size[1:])),
            ),
        )


_BERT = "text_encoder.bert."
_PUBLISHED = (
    *ENCODER,
    (r"^encoder\.", "vision_encoder."),
    (r"^text\.embed\.", f"{_BERT}embeddings.word_embeddings."),
    (r"^text\.pos_embed$", f"{_BERT}embeddings.position_embeddings.weight"),
    (r"^text\.embed_norm\.", f"{_BERT}embeddings.LayerNorm."),
    (r"^text\.blocks\.", f"{_BERT}encoder.layer."),
    (r"\.cross_attention\.q\.", ".crossattention.self.query."),
    (r"\.cross_attention\.kv\.", ".crossattention.self.kv."),
    (r"\.cross_attention\.out\.", ".crossattention.output.dense."),
    (r"\.norm_cross\.", ".crossattention.output.LayerNorm."),
    (r"(layer\.\d+)\.attention\.qkv\.", r"\1.attention.self.qkv."),
    (r"(layer\.\d+)\.attention\.out\.", r"\1.attention.output.dense."),
    (r"(layer\.\d+)\.norm1\.", r"\1.attention.output.LayerNorm."),
    (r"(layer\.\d+)\.norm2\.", r"\1.output.LayerNorm."),
    (r"(layer\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"(layer\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
    (r"^words\.fc\.", "text_encoder.cls.predictions.transform.dense."),
    (r"^words\.norm\.", "text_encoder.cls.predictions.transform.LayerNorm."),
    (r"^words\.bias$", "text_encoder.cls.predictions.bias"),
    (r"^video_head\.", "vision_proj."),
    (r"^text_head\.", "text_proj."),
    (r"^match_head\.", "itm_head."),
    (r"^log_scale$", "temp"),
)
"""Ours to theirs."""


def _unpacked(file: Mapping[str, Any]) -> Mapping[str, Any]:
    """Queries, keys and values of the text in one; its only kind of segment is part of the positions."""
    text = {name: tensor for name, tensor in file.items() if name.startswith("text_encoder.")}
    kinds = text.pop(f"{_BERT}embeddings.token_type_embeddings.weight", None)
    places = f"{_BERT}embeddings.position_embeddings.weight"
    if kinds is not None and places in text:
        text[places] = text[places] + kinds[0]
    return {name: tensor for name, tensor in file.items() if not name.startswith("text_encoder.")} | fused(text)


def _packed(theirs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The inverse of :func:`_unpacked`, with segments of zeros."""
    text = unfused({name: tensor for name, tensor in theirs.items() if name.startswith("text_encoder.")})
    like = text[f"{_BERT}embeddings.position_embeddings.weight"]
    text[f"{_BERT}embeddings.token_type_embeddings.weight"] = torch.zeros_like(like[:2])
    return {name: tensor for name, tensor in theirs.items() if not name.startswith("text_encoder.")} | text


def _to_ours(name: str, tensor: Tensor) -> Tensor:
    """They learn the temperature, we the logarithm of its inverse."""
    return -tensor.log() if name == "log_scale" else as_linear(name, tensor)


def _to_theirs(patch: tuple[int, int, int], name: str, tensor: Tensor) -> Tensor:
    if name.startswith("encoder."):
        return as_convolution(patch, name, tensor)
    return (-tensor[0]).exp() if name == "log_scale" else tensor


BERT_LARGE = TextArchitecture(
    vocab_size=30_522,
    width=1024,
    depth=24,
    num_heads=16,
    max_length=512,
    norm="post",
    norm_eps=1e-12,
    dropout=0.1,
    cross_every=1,
    cross_from=19,
)
"""BERT's large size, of which the last 5 layers read the clip."""


def tiny() -> Run:
    """Moving shapes with captions, four frames of 48 x 48 pixels; two CPU cores train it in a minute."""
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=400, num_test=60, num_frames=4, size=48, labels="form"),
            reads=Captioned(max_length=16),
            clip=Clip(num_frames=4, sampling="uniform", size=48, short_side=(48, 48)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=InternVideo2TextConfig(
            vision=AlignedArchitecture(
                width=96,
                depth=3,
                num_heads=3,
                num_frames=4,
                size=48,
                patch_size=(1, 8, 8),
                layer_scale=0.1,
                pool_width=64,
                pool_num_heads=2,
                linear_init="glorot",
            ),
            text=replace(
                BERT_LARGE,
                vocab_size=129,
                width=64,
                depth=3,
                num_heads=4,
                max_length=16,
                dropout=0.0,
                cross_from=2,
                linear_init="glorot",
            ),
            embed_dim=32,
            mask_ratio=0.5,
        ),
        optim=AdamW(lr=1e-3, weight_decay=0.05, betas=(0.9, 0.98), schedule=Cosine(warmup=0.1)),
        train=Loop(length=Steps(200)),
        evals=(Retrieval(),),
    )


def one_b() -> Run:
    """The encoder of 1B weights and BERT-large, on four frames of 224 pixels, for ten epochs of image-text and
    video-text pairs."""
    return _stage("one_b", batch_size=4096, epochs=10, max_length=32)


def six_b() -> Run:
    """The encoder of 6B weights and BERT-large, the half of the paper's that sees and does not hear."""
    return _stage("six_b", batch_size=4096, epochs=5, max_length=40)


def _stage(first: str, *, batch_size: int, epochs: int, max_length: int) -> Run:
    before = find(f"pretraining.internvideo2:{first}").objective
    assert isinstance(before, AlignedArchitecture)
    own = {name: getattr(before, name) for name in AlignedArchitecture.__dataclass_fields__}
    vision = AlignedArchitecture(**own | {"num_frames": 4, "patch_size": (1, *before.patch_size[1:])})
    return Run(
        data=Data(
            reads=Captioned(max_length=max_length),
            clip=Clip(num_frames=4, sampling="segments", size=224, crop="random_resized", area=(0.5, 1.0)),
            augment=Augment(mirror=0.0),
            batch_size=batch_size,
            num_workers=6,
        ),
        objective=InternVideo2TextConfig(vision=vision, text=BERT_LARGE),
        optim=AdamW(lr=5e-5, weight_decay=0.05, betas=(0.9, 0.98), schedule=Cosine(warmup=1 / epochs, final=0.01)),
        train=Loop(length=Epochs(epochs), precision="bfloat16", checkpoint=True, clip_grad=3.0),
        evals=(Retrieval(rerank=128),),
    )

"""InternVideo, the half that learns from text: a CLIP whose image tower is armed for video learns to match and to
caption.

A UniFormerV2 sees the clip, CLIP's text transformer reads the caption from left to right; their vectors are
contrasted. A decoder in CoCa's form goes on from the text's tokens: learned queries pool the clip's tokens and its
vector, and each layer attends to earlier words and then to these queries. Wang et al., "InternVideo: General Video
Foundation Models via Generative and Discriminative Learning", 2022; the decoder is that of the authors' code, after
Yu et al., "CoCa: Contrastive Captioners are Image-Text Foundation Models", 2022.

    filmstrip train language.internvideo:b16 --data PATH --data.reads.tokenizer CLIP --init UNIFORMER_V2_RUN
    filmstrip caption RUN VIDEOS --out TABLE

The encoder is :mod:`filmstrip.systems.recognition.uniformer_v2`; a run of this is a ``language_run`` of
``recognition.internvideo``, which joins it with a masked encoder. ``--init`` takes a run of UniFormerV2, or the
authors' file. The text leaves open how captioning is weighed (here 1); rates are those of the code for WebVid-10M.

Where we deviate: the decoder reads the patches of all frames and the clip's vector, not the frames' class tokens;
equal captions of a batch are no negatives; texts begin anew unless the authors' file starts the run.

The paper reports a recall at 1 without examples from text to video of 40.7 on MSR-VTT, 31.5 on DiDeMo and 49.5 on
VATEX (L/14, as quoted with InternVideo2); captioning adds 3 to 8 points of video question answering.

Measured here (``filmstrip claims internvideo_words``, textures of six colours that move in four ways, mean of three
seeds): 96% of unseen clips are nearest to their caption, and 23% with a plain image tower, averaged over frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, Rate, Weight
from filmstrip.data.config import Augment, Clip, Data, DataInfo
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.errors import UserError
from filmstrip.evals.retrieval import Retrieval
from filmstrip.models.query_transformer import QueryPooling, QueryPoolingConfig
from filmstrip.models.text_transformer import TextArchitecture, TextTransformer, at_end
from filmstrip.nn.attention import Attention
from filmstrip.nn.decoding import Writing, write
from filmstrip.nn.initialisation import init_normal
from filmstrip.nn.masks import causal
from filmstrip.nn.mlp import GatedMLP
from filmstrip.nn.rotary import Rotary
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.contrastive import Pairing, Rows, TextTowerConfig, captions_of, matching
from filmstrip.objectives.language import averaged, token_losses
from filmstrip.objectives.matching import check_length, valid_tokens
from filmstrip.protocols import Batch, Layout, Loss, Objective, Released, find_encoder
from filmstrip.randomness import uniform
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine


class ParallelBlock(nn.Module):
    """Attention and a gated feed-forward network side by side, of the same normalised tokens: ``B L D -> B L D``.

    All heads share keys and values. With ``crosses`` it attends to a context, otherwise to earlier tokens, with
    rotary positions (Yu et al. 2022, after Chowdhery et al. 2022, PaLM).
    """

    def __init__(self, width: int, num_heads: int, *, crosses: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, bias=False)
        self.attention = Attention(
            width,
            num_heads,
            num_kv_heads=1,
            qkv_bias="none",
            out_bias=False,
            context_width=width if crosses else None,
        )
        self.mlp = GatedMLP(width, 4 * width)
        self.rotary = None if crosses else Rotary(width // num_heads)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Apply the block."""
        y = self.norm(x)
        if self.rotary is None:
            return x + self.attention(y, context=context) + self.mlp(y)
        angles = self.rotary(torch.arange(x.shape[1], device=x.device)[:, None])
        return x + self.attention(y, mask=causal(), angles=angles) + self.mlp(y)


@dataclass(frozen=True, kw_only=True)
class CaptionerArchitecture:
    """Sizes of a :class:`Captioner`, whose channels are those of the text."""

    depth: Count
    """Number of layers, each a block over words and one over the clip."""
    num_heads: Count
    """Attention heads of a block."""
    num_queries: Count = 256
    """Number of queries that pool the clip's tokens."""


class Captioner(nn.Module):
    """Logits of the next word, from a text's tokens up to it and from a clip's tokens."""

    def __init__(self, config: CaptionerArchitecture, *, width: int, context_width: int, vocab_size: int) -> None:
        super().__init__()
        heads = config.num_heads
        self.pool = QueryPooling(
            QueryPoolingConfig(
                num_queries=config.num_queries,
                width=width,
                num_heads=heads,
                context_width=context_width,
                num_kv_heads=1,
                bias=False,
                norm_eps=1e-5,
            )
        )
        self.norm = nn.LayerNorm(width)
        self.words = nn.ModuleList(ParallelBlock(width, heads, crosses=False) for _ in range(config.depth))
        self.clip = nn.ModuleList(ParallelBlock(width, heads, crosses=True) for _ in range(config.depth))
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, vocab_size)
        )
        self.apply(init_normal)

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """``B L D`` tokens of a text and ``B M C`` of a clip to logits ``B L vocab_size``."""
        return self.next_words(tokens, self.pool(context))

    def next_words(self, tokens: Tensor, pooled: Tensor) -> Tensor:
        """The same, of what the queries pooled."""
        x = self.norm(tokens)
        for words, clip in zip(self.words, self.clip):
            x = clip(words(x), pooled)
        return self.head(x)


@dataclass(frozen=True, kw_only=True)
class InternVideoTextConfig(TextTowerConfig):
    """An encoder of clips, one of texts, and a decoder that captions."""

    vision: ObjectiveConfig
    """Encoder of clips: a UniFormerV2, or any."""
    text: TextArchitecture
    """Encoder of texts, read from left to right."""
    captioner: CaptionerArchitecture
    """Decoder behind the text's encoder."""
    embed_dim: Count
    """Channels of the vectors that are compared."""
    loss: Literal["sigmoid", "softmax"] = "softmax"
    """Contrastive loss; the paper's is a choice among the batch."""
    scale: Rate = 1 / 0.07
    """Initial factor of the cosines, the inverse of the temperature; it is learned."""
    max_scale: Rate | None = 100.0
    """Maximum of the factor."""
    caption_weight: Weight = 1.0
    """Weight of captioning, relative to contrast."""
    start: CountOrZero | None = None
    """Id of the start of a text, with which captions begin; it comes from the data."""

    def bind(self, info: DataInfo) -> Self:
        """Take the vocabulary and the start of a text from the data.

        Raises:
            UserError: the data have no captions, or longer ones than the network reads.
        """
        words = captions_of(info, self.text.max_length, "objective.text.max_length").tokenizer
        return replace(super().bind(info), start=words.start)

    def for_clip(self, clip: Clip) -> Self:
        """With clips of the data's length and size."""
        return replace(self, vision=self.vision.for_clip(clip))

    def build(self) -> InternVideoText:
        """Build the networks with fresh weights.

        Raises:
            UserError: the configuration of the clips' encoder has none.
        """
        return InternVideoText(self)


class InternVideoText(Pairing):
    """A :class:`~filmstrip.protocols.DualEncoder` and a :class:`~filmstrip.protocols.Captioner`."""

    requires = ("video", "text", "text_length", "index")
    starts_whole = True

    def __init__(self, config: InternVideoTextConfig) -> None:
        super().__init__(config)
        encoder = find_encoder(config.vision.build())
        if encoder is None:
            raise UserError(f"{type(config.vision).__name__} has no encoder that could see clips (objective.vision)")
        self.encoder = encoder
        self.text = TextTransformer(config.text)
        self.video_norm = nn.LayerNorm(encoder.width)
        self.video_head = nn.Linear(encoder.width, config.embed_dim, bias=False)
        self.text_head = nn.Linear(config.text.width, config.embed_dim, bias=False)
        for head in (self.video_head, self.text_head):
            nn.init.normal_(head.weight, std=head.in_features**-0.5)
        self.captioner = Captioner(
            config.captioner,
            width=config.text.width,
            context_width=encoder.width,
            vocab_size=config.text.vocab_size,
        )

    def encode_video(self, video: Tensor) -> Tensor:
        """Vectors ``B D`` of ``B T C H W`` video, of length one."""
        return self._video_vectors(self.encoder(video).pooled())

    def encode_text(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Vectors ``B D`` of texts, token ids ``B L`` and their lengths ``B``, of length one."""
        return self._text_vectors(self.text(ids, mask=causal()), lengths)

    def see(self, video: Tensor) -> Tensor:
        """Tokens ``B 1+N C`` of ``B T C H W`` video: its vector, then its patches."""
        seen = self.encoder(video)
        return torch.cat([seen.pooled()[:, None], seen.tokens], dim=1)

    def caption(
        self,
        visual: Tensor,
        prompt: Sequence[int] = (),
        *,
        end: int,
        seed: int | Tensor = 0,
        writing: Writing | None = None,
    ) -> Tensor:
        """See :class:`~filmstrip.protocols.Captioner`; without a ``writing`` the most probable tokens.

        Raises:
            UserError: texts had no start in training.
        """
        if self.config.start is None:
            raise UserError("this network learnt from texts without a start, with which a caption would begin")
        writing = writing or Writing()
        begun = torch.tensor([[self.config.start, *prompt]], device=visual.device).expand(len(visual), -1)
        check_length(begun.shape[1], writing, self.config.text.max_length)
        pooled = self.captioner.pool(visual).repeat_interleave(writing.beams, dim=0)

        def next_logits(text: Tensor, rows: Tensor) -> Tensor:
            said = self.captioner.next_words(self.text(text, mask=causal()), pooled)[:, -1]
            return said.index_fill(1, begun[0, :1], -torch.inf)

        seeds = torch.arange(len(visual), device=visual.device) + seed
        drawn = uniform(seeds, writing.max_tokens, "internvideo.caption")
        return write(next_logits, begun, writing, end=end, uniform=drawn)

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Contrast, and the weighted mean of the words' cross-entropies."""
        ids, lengths = batch["text"], batch["text_length"]
        visual, tokens = self.see(batch["video"]), self.text(ids, mask=causal())
        video, text = self._video_vectors(visual[:, 0]), self._text_vectors(tokens, lengths)
        rows = [Rows(vectors, ids, batch["index"]) for vectors in (video, text)]
        with torch.autocast(video.device.type, enabled=False):
            contrast = self._softmax(*rows) if self.config.loss == "softmax" else self._sigmoid(*rows)
            nearest = self.similarity(video, text).detach().argmax(dim=1, keepdim=True)
        logits = self.captioner(tokens[:, :-1], visual)
        learnt = valid_tokens(ids, lengths)[:, 1:]
        captioning = averaged(token_losses(logits, ids[:, 1:], learnt), learnt, "tokens")
        metrics = {
            "contrast": contrast.detach(),
            "captioning": captioning.detach(),
            "matched": matching(*rows).gather(1, nearest).float().mean(),
        }
        return Loss(contrast + self.config.caption_weight * captioning, metrics)

    def _video_vectors(self, pooled: Tensor) -> Tensor:
        return F.normalize(self.video_head(self.video_norm(pooled)).float(), dim=-1)

    def _text_vectors(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return F.normalize(self.text_head(at_end(tokens, lengths)).float(), dim=-1)

    def depth_of(self, name: str) -> int:
        """Each encoder's own layers; heads, scale and captioner come after the last of both."""
        part, _, rest = name.partition(".")
        if part in ("encoder", "text"):
            return getattr(self, part).depth_of(rest)
        return max(self.encoder.depth, self.text.depth) + 2

    def taken_from(self, other: Objective) -> Mapping[str, Tensor] | None:
        """The encoder of a run that has one of the same kind."""
        given = find_encoder(other)
        if type(given) is not type(self.encoder):
            return None
        return {f"encoder.{name}": tensor for name, tensor in given.state_dict().items()}

    def layouts(self) -> tuple[Layout, ...]:
        """That of the authors, whose files may have no captioner; their masked token has no place here."""
        (encoder,) = (one for one in cast(Released, self.encoder).layouts() if one.name == "InternVideo")
        heads = self.captioner.words[0].attention
        rows = (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim
        return (
            Layout(
                name="InternVideo",
                rules=(*_PUBLISHED, *encoder.rules),
                spare=("text_mask_embedding", r"caption_decoder\..*\.(?:beta|rotary_emb\.inv_freq)"),
                optional=(r"caption_decoder\..*",),
                unpack=_unpacked,
                to_ours=partial(_to_ours, encoder.to_ours, rows),
                to_theirs=partial(_to_theirs, encoder.to_theirs),
            ),
        )


_LAYER = r"caption_decoder.multimodal_layers.\1."
_PUBLISHED = (
    (r"^text\.embed\.", "token_embedding."),
    (r"^text\.pos_embed$", "positional_embedding"),
    (r"^text\.norm\.", "ln_final."),
    (r"^text\.blocks\.(\d+)\.attention\.qkv\.", r"transformer.resblocks.\1.attn.in_proj_"),
    (r"^text\.blocks\.(\d+)\.attention\.out\.", r"transformer.resblocks.\1.attn.out_proj."),
    (r"^text\.blocks\.(\d+)\.norm(\d)\.", r"transformer.resblocks.\1.ln_\2."),
    (r"^text\.blocks\.(\d+)\.mlp\.fc1\.", r"transformer.resblocks.\1.mlp.c_fc."),
    (r"^text\.blocks\.(\d+)\.mlp\.fc2\.", r"transformer.resblocks.\1.mlp.c_proj."),
    (r"^video_norm\.", "visual_ln_post."),
    (r"^video_head\.weight$", "visual_proj"),
    (r"^text_head\.weight$", "text_projection"),
    (r"^log_scale$", "logit_scale"),
    (r"^captioner\.pool\.queries$", "caption_decoder.visual_queries"),
    (r"^captioner\.pool\.query_norm\.weight$", "caption_decoder.visual_attn_pooler.norm.gamma"),
    (r"^captioner\.pool\.query_norm\.bias$", "caption_decoder.visual_attn_pooler.norm.beta"),
    (r"^captioner\.pool\.context_norm\.weight$", "caption_decoder.visual_attn_pooler.context_norm.gamma"),
    (r"^captioner\.pool\.context_norm\.bias$", "caption_decoder.visual_attn_pooler.context_norm.beta"),
    (r"^captioner\.pool\.attention\.", "caption_decoder.visual_attn_pooler.to_"),
    (r"^captioner\.pool\.norm\.", "caption_decoder.visual_pooler_norm."),
    (r"^captioner\.norm\.", "caption_decoder.text_norm."),
    (r"^captioner\.words\.(\d+)\.norm\.weight$", f"{_LAYER}0.fn.norm.gamma"),
    (r"^captioner\.words\.(\d+)\.(?:attention\.qkv|mlp\.gate_and_value)\.", f"{_LAYER}0.fn.fused_attn_ff_proj."),
    (r"^captioner\.words\.(\d+)\.attention\.out\.", f"{_LAYER}0.fn.attn_out."),
    (r"^captioner\.words\.(\d+)\.mlp\.out\.", f"{_LAYER}0.fn.ff_out.1."),
    (r"^captioner\.clip\.(\d+)\.norm\.weight$", f"{_LAYER}1.fn.norm.gamma"),
    (r"^captioner\.clip\.(\d+)\.attention\.", f"{_LAYER}1.fn.to_"),
    (r"^captioner\.clip\.(\d+)\.mlp\.gate_and_value\.", f"{_LAYER}1.fn.ff.0."),
    (r"^captioner\.clip\.(\d+)\.mlp\.out\.", f"{_LAYER}1.fn.ff.2."),
    (r"^captioner\.head\.", "caption_decoder.predictor."),
)
"""Ours to theirs, but the encoder's."""


def _unpacked(file: Mapping[str, Any]) -> Mapping[str, Any]:
    """The model of video and text, and the captioner if there is one, out of what they were trained in."""
    pair = {name.removeprefix("clip."): tensor for name, tensor in file.items() if name.startswith("clip.")}
    beside = {name: tensor for name, tensor in file.items() if name.startswith("caption_decoder.")}
    return pair | beside if pair else file


def _to_ours(encoder: Callable[[str, Tensor], Tensor] | None, rows: int, name: str, tensor: Tensor) -> Tensor:
    """Projections lie the other way; attention and feed-forward network of words are one layer, whose value comes
    before its gate."""
    if name.startswith("encoder."):
        return tensor if encoder is None else encoder(name, tensor)
    if name in ("video_head.weight", "text_head.weight"):
        return tensor.T.contiguous()
    if name.startswith("captioner.words.") and name.endswith("qkv.weight"):
        return tensor[:rows]
    if name.endswith("gate_and_value.weight"):
        value, gate = tensor[rows if name.startswith("captioner.words.") else 0 :].chunk(2)
        return torch.cat([gate, value])
    return tensor


def _to_theirs(encoder: Callable[[str, Tensor], Tensor] | None, name: str, tensor: Tensor) -> Tensor:
    """The inverse of :func:`_to_ours`."""
    if name.startswith("encoder."):
        return tensor if encoder is None else encoder(name, tensor)
    if name in ("video_head.weight", "text_head.weight"):
        return tensor.T.contiguous()
    if name.endswith("gate_and_value.weight"):
        gate, value = tensor.chunk(2)
        return torch.cat([value, gate])
    return tensor[0] if name == "log_scale" else tensor


def tiny() -> Run:
    """Moving shapes with captions, four frames of 48 x 48 pixels; two CPU cores train it in a minute."""
    below = find("recognition.uniformer_v2").objective
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=400, num_test=60, num_frames=4, size=48, labels="form"),
            reads=Captioned(max_length=16),
            clip=Clip(num_frames=4, sampling="uniform", size=48, short_side=(48, 48)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=InternVideoTextConfig(
            vision=replace(below, size=48, halve_time=False, num_classes=1),
            text=TextArchitecture(
                vocab_size=128,
                width=64,
                depth=2,
                num_heads=4,
                max_length=16,
                gelu="quick",
                norm_eps=1e-5,
                linear_init="glorot",
            ),
            captioner=CaptionerArchitecture(depth=1, num_heads=4, num_queries=8),
            embed_dim=32,
        ),
        optim=AdamW(lr=1e-3, weight_decay=0.05, schedule=Cosine(warmup=0.1)),
        train=Loop(length=Steps(200)),
        evals=(Retrieval(),),
    )


def b16() -> Run:
    """B/16 with eight frames of 224 pixels."""
    return _released("b16_8_k400", text_width=512)


def l14() -> Run:
    """L/14 with eight frames of 224 pixels: the size of the paper's results."""
    return _released("l14_8_k400", text_width=768)


def _released(vision: str, *, text_width: int) -> Run:
    heads = text_width // 64
    return Run(
        data=Data(
            reads=Captioned(max_length=77),
            clip=Clip(num_frames=8, sampling="segments", size=224, crop="random_resized", area=(0.9, 1.0)),
            augment=Augment(mirror=0.0),
            batch_size=1024,
            num_workers=8,
        ),
        objective=InternVideoTextConfig(
            vision=replace(find(f"recognition.uniformer_v2:{vision}").objective, num_classes=1),
            text=TextArchitecture(
                vocab_size=49_408,
                width=text_width,
                depth=12,
                num_heads=heads,
                max_length=77,
                gelu="quick",
                norm_eps=1e-5,
            ),
            captioner=CaptionerArchitecture(depth=4, num_heads=heads),
            embed_dim=text_width,
        ),
        optim=AdamW(lr=1e-5, weight_decay=0.2, schedule=Cosine(warmup=Steps(4000))),
        train=Loop(length=Epochs(10), precision="bfloat16", checkpoint=True),
        evals=(Retrieval(),),
    )

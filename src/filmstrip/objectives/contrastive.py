"""Contrastive learning of video and text: two encoders whose vectors agree where the text belongs to the video.

``sigmoid``: every pair of a batch is a question of its own, does it belong together (Zhai et al. 2023, SigLIP).
``softmax``: which of the batch's texts belongs to a video, and which video to a text (Radford et al. 2021, CLIP).
Equal texts of a batch, and clips of one video, are no negatives: such pairs count as matching too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from filmstrip.bounds import AnyNumber, Count, Rate
from filmstrip.data.config import Clip, DataInfo
from filmstrip.data.kinds.captioned import CaptionInfo
from filmstrip.errors import UserError
from filmstrip.models.dual_encoder import layouts_of, towers_in_hub
from filmstrip.models.image_tower import ImageTower, ImageTowerArchitecture
from filmstrip.models.text_transformer import TextArchitecture, TextTransformer, at_end, at_last
from filmstrip.nn.masks import causal
from filmstrip.nn.patches import NativeFrames
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Batch, Layout, Loss, Objective, PassOn


@dataclass(frozen=True, kw_only=True)
class PairingConfig(ObjectiveConfig):
    """A contrastive loss of video and text. Methods add the networks that encode both."""

    loss: Literal["sigmoid", "softmax"] = "sigmoid"
    """Contrastive loss: one question for each pair, or a choice among the texts, and videos, of the batch."""
    scale: Rate = 10.0
    """Initial factor of the cosines, the inverse of the temperature; it is learned."""
    max_scale: Rate | None = None
    """Maximum of the factor; none for no limit."""
    bias: AnyNumber = -10.0
    """Initial bias of the sigmoid loss, which is learned. The default makes a large batch's many negatives cheap at
    first; for a batch of ``n`` about ``-log(n)`` does."""
    same_texts: bool = True
    """Whether equal texts of a batch count as matching, instead of as negatives."""


@dataclass(frozen=True, kw_only=True)
class TextTowerConfig(PairingConfig):
    """The same, of texts that have a network of their own."""

    text: TextArchitecture
    """Tower of texts."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.text.vocab_size

    def bind(self, info: DataInfo) -> Self:
        """Make room for the vocabulary of the data.

        Raises:
            UserError: the data have no captions, or longer ones than the network reads.
        """
        told = captions_of(info, self.text.max_length, "objective.text.max_length")
        size = max(told.tokenizer.size, self.text.vocab_size)
        return replace(self, text=replace(self.text, vocab_size=size))


def captions_of(info: DataInfo, max_length: int, setting: str) -> CaptionInfo:
    """What is known of captions, which a network reads up to ``max_length``, as ``setting`` says.

    Raises:
        UserError: the data have no captions, or longer ones.
    """
    if not isinstance(info, CaptionInfo):
        raise UserError("this method learns from captions: read data with captions (--data.reads captioned)")
    if info.max_length > max_length:
        raise UserError(
            f"captions of {info.max_length} tokens are longer than the network's {max_length}: lower "
            f"data.reads.max_length, or raise {setting}"
        )
    return info


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig(TextTowerConfig):
    """Two towers and a contrastive loss. Systems add how the towers are pooled and projected."""

    vision: ImageTowerArchitecture
    """Tower of frames."""

    def for_clip(self, clip: Clip) -> Self:
        """With frames of the clip's size."""
        return replace(self, vision=replace(self.vision, num_frames=clip.num_frames, size=clip.size))


def contrastive_in_hub(config: Mapping[str, Any], statistics: Mapping[str, Any], source: str) -> Contrastive:
    """The SigLIP or CLIP that a ``config.json`` describes, with fresh weights; ``statistics`` are those of pixels.

    Raises:
        UserError: it describes another model.
    """
    vision, text = towers_in_hub(config, statistics, source)
    kind = config["model_type"]
    layouts = layouts_of(kind, vision.tubelet)
    if kind != "clip":
        siglip = ContrastiveConfig(vision=vision, text=text)
        naflex = kind == "siglip2"
        return Contrastive(siglip, pool="last", causal_text=False, layouts=layouts, resizes=naflex)
    own = ContrastiveConfig(vision=vision, text=text, loss="softmax", scale=1 / 0.07, max_scale=100.0)
    dim = config.get("projection_dim", 512)
    return Contrastive(own, pool="end", causal_text=True, embed_dim=dim, layouts=layouts)


class Rows(NamedTuple):
    """One process's side of a batch, as others compare theirs with it."""

    vectors: Tensor
    """Vectors of length one, ``B D``."""
    ids: Tensor
    """Token ids of the texts, ``B L``."""
    index: Tensor
    """Index of each sample in its split, ``B``."""


class Pairing(Objective):
    """A :class:`~filmstrip.protocols.DualEncoder` trained by a contrastive loss; methods say how they encode.

    A method that fixes the temperature stops the gradient of ``log_scale``.
    """

    requires = ("video", "text", "text_length", "index")

    def __init__(self, config: PairingConfig) -> None:
        super().__init__()
        self.config = config
        self.log_scale = nn.Parameter(torch.full((1,), math.log(config.scale)))
        self.bias = nn.Parameter(torch.full((1,), float(config.bias))) if config.loss == "sigmoid" else None
        self._pass_on: PassOn | None = None
        self._processes = 1

    def encode_video(self, video: Tensor, *native: NativeFrames) -> Tensor:
        """Vectors ``B D`` of ``B T C H W`` video, of length one."""
        raise TypeError(f"{type(self).__name__} does not define encode_video(video)")

    def encode_text(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Vectors ``B D`` of texts, token ids ``B L`` and their lengths ``B``, of length one."""
        raise TypeError(f"{type(self).__name__} does not define encode_text(ids, lengths)")

    def similarity(self, video: Tensor, text: Tensor) -> Tensor:
        """Logits ``N M``: scaled cosines, with the bias of the sigmoid loss."""
        return _logits(video, text, self.log_scale, self.bias)

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The loss of a batch, with that of all processes where there are several."""
        frames = NativeFrames.of(batch)
        return self.contrast(self.encode_video(batch["video"], *(() if frames is None else (frames,))), batch)

    def contrast(self, video: Tensor, batch: Batch) -> Loss:
        """The loss of videos by their vectors ``B D`` and the batch's texts."""
        text = self.encode_text(batch["text"], batch["text_length"])
        loss = self._sigmoid if self.config.loss == "sigmoid" else self._softmax
        with torch.autocast(video.device.type, enabled=False):
            ids, index = batch["text"], batch["index"]
            total = loss(Rows(video, ids, index), Rows(text, ids, index))
            with torch.no_grad():
                nearest = (video @ text.T).argmax(dim=1)
                right = self._same(Rows(video, ids, index), Rows(text, ids, index)).gather(1, nearest[:, None])
        metrics = {"matched": right.float().mean(), "scale": self.log_scale.detach().exp()[0]}
        if self.bias is not None:
            metrics["bias"] = self.bias.detach()[0]
        return Loss(total, metrics)

    def after_step(self, step: int) -> None:
        """Keep the scale below its maximum."""
        if self.config.max_scale is not None:
            with torch.no_grad():
                self.log_scale.clamp_(max=math.log(self.config.max_scale))

    def share_rows(self, pass_on: PassOn, processes: int, rank: int) -> None:
        """See :class:`~filmstrip.protocols.SharesRows`."""
        self._pass_on, self._processes = pass_on, processes

    def depth_of(self, name: str) -> int:
        """Each tower's own layers; heads, scale and bias come after the last of both."""
        part, _, rest = name.partition(".")
        if part in ("encoder", "text"):
            return getattr(self, part).depth_of(rest)
        return max(self.encoder.depth, self.text.depth) + 1

    def _same(self, rows: Rows, others: Rows) -> Tensor:
        """Whether pairs match, ``N M``: clips and texts of one sample, or of samples with equal texts."""
        return matching(rows, others) if self.config.same_texts else rows.index[:, None] == others.index

    def _around(self, rows: Rows) -> Iterator[Rows]:
        """The rows of this process, then those of all others in the order of the ring."""
        yield rows
        for _ in range(self._processes - 1):
            assert self._pass_on is not None
            rows = Rows(*map(self._pass_on, rows))
            yield rows

    def _sigmoid(self, video: Rows, text: Rows) -> Tensor:
        """The sigmoid loss of this process's videos with all texts.

        One tile of logits is held at a time: of several, the backward pass computes each again.
        """

        def tile(texts: Rows) -> Tensor:
            logits = _logits(video.vectors, texts.vectors, self.log_scale, self.bias)
            return sigmoid_loss(logits, self._same(video, texts))

        if self._processes == 1:
            return tile(text)
        return torch.stack([_recomputed(tile, texts) for texts in self._around(text)]).sum()

    def _softmax(self, video: Rows, text: Rows) -> Tensor:
        """The mean of the losses of this process's videos among all texts, and of its texts among all videos."""
        losses = []
        for own, other in ((video, text), (text, video)):
            found = list(self._around(other))
            logits = torch.cat([_logits(own.vectors, rows.vectors, self.log_scale, None) for rows in found], dim=1)
            losses.append(choice_loss(logits, torch.cat([self._same(own, rows) for rows in found], dim=1)))
        return (losses[0] + losses[1]) / 2


class Contrastive(Pairing):
    """Two towers. A clip's vector is the mean of its frames' vectors.

    ``pool`` and ``causal_text`` say how texts are read: SigLIP takes the last position of a text that attends to its
    padding, CLIP the end of one read from left to right. ``embed_dim`` adds projections of both sides without biases
    (CLIP); without, the text's has a bias (SigLIP). One that ``resizes`` takes frames of any size (SigLIP 2).
    """

    starts_whole = True
    config: ContrastiveConfig

    def __init__(
        self,
        config: ContrastiveConfig,
        *,
        pool: Literal["last", "end"],
        causal_text: bool,
        embed_dim: Count | None = None,
        layouts: tuple[Layout, ...] = (),
        resizes: bool = False,
    ) -> None:
        super().__init__(config)
        self.pool, self.causal_text = pool, causal_text
        self.encoder = ImageTower(config.vision, layouts, resizes=resizes)
        self.takes_native = resizes
        self.text = TextTransformer(config.text)
        width = embed_dim or config.vision.width
        self.video_head = nn.Identity() if embed_dim is None else projection(config.vision.width, width, bias=False)
        self.text_head = projection(config.text.width, width, bias=embed_dim is None)

    def encode_video(self, video: Tensor, *native: NativeFrames) -> Tensor:
        """Vectors ``B D`` of ``B T C H W`` video, of length one; ``native`` are sizes of frames that differ."""
        if not native:
            return self.to_vectors(self.encoder(video).pooled())
        return self.to_vectors(self.encoder.native(video, *native).summary.mean(dim=1))

    def to_vectors(self, pooled: Tensor) -> Tensor:
        """Vectors of length one that are compared, of means over frames, ``B D``."""
        return normalised(self.video_head(pooled))

    def encode_text(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Vectors ``B D`` of texts, token ids ``B L`` and their lengths ``B``, of length one."""
        tokens = self.text(ids, mask=causal() if self.causal_text else None)
        return normalised(self.text_head(at_last(tokens) if self.pool == "last" else at_end(tokens, lengths)))


def matching(rows: Rows, others: Rows) -> Tensor:
    """Whether pairs match, ``N M`` bool: clips and texts of one sample, or of samples with equal texts."""
    return (rows.index[:, None] == others.index) | (rows.ids[:, None] == others.ids).all(dim=2)


def sigmoid_loss(logits: Tensor, same: Tensor) -> Tensor:
    """Binary cross-entropy of pairs ``N M``, summed over a row's and averaged over rows (SigLIP's equation 1)."""
    return -F.logsigmoid(torch.where(same, logits, -logits)).sum() / logits.shape[0]


def choice_loss(logits: Tensor, same: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the choice in each row of ``N M``; several that match are equally right."""
    target = same.to(logits.dtype)
    return F.cross_entropy(logits, target / target.sum(dim=1, keepdim=True), label_smoothing=smoothing)


def softmax_loss(logits: Tensor, same: Tensor, smoothing: float = 0.0) -> Tensor:
    """The mean of the :func:`choice_loss` of the rows and of the columns (InfoNCE in both directions)."""
    return (choice_loss(logits, same, smoothing) + choice_loss(logits.T, same.T, smoothing)) / 2


def _logits(video: Tensor, text: Tensor, log_scale: Tensor, bias: Tensor | None) -> Tensor:
    logits = video @ text.T * log_scale.exp()
    return logits if bias is None else logits + bias


def _recomputed(function: Callable[[Rows], Tensor], rows: Rows) -> Tensor:
    """What a function returns, without keeping anything between the passes but the rows."""
    result = checkpoint(lambda *tensors: function(Rows(*tensors)), *rows, use_reentrant=False)
    assert isinstance(result, Tensor)
    return result


def normalised(vectors: Tensor) -> Tensor:
    """Vectors of length one, float32."""
    return F.normalize(vectors.float(), dim=-1)


def projection(width: int, outputs: int, *, bias: bool) -> nn.Linear:
    """A linear layer to the vectors that are compared, whose outputs are as large as its inputs at first."""
    layer = nn.Linear(width, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=width**-0.5)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer

"""ActionFormer: every moment of an untrimmed video says which action it is in, and how far its ends are.

Features along a video go through convolutions and a pyramid of local self-attention; one head for classes and one for
the distances to both ends serve all levels, and soft non-maximum suppression keeps the best of what they say.
Zhang et al., "ActionFormer: Localizing Moments of Actions with Transformers", 2022.

    filmstrip train localisation.actionformer:thumos14 --data FEATURES --data.reads.annotations ANNOTATIONS
    filmstrip eval RUN --protocol localisation

``--init FILE`` begins with the authors' released weights of the same network.

Presets have the hyper-parameters of the authors' released configurations (30 and 10 epochs after 5 of warm-up, no
dropout but of whole branches; ``tiny`` has some), and training samples are cut as in their code. Where we deviate: a
row's result does not depend on how much padding follows it (in the released code the norm's bias stands in the
padding, and convolutions see it); classes are always our own, where the released figures for ActivityNet take them
from another's classifier of whole videos; segments are not averaged with their neighbours after suppression,
as theirs of ActivityNet are; positions beyond ``max_length`` go on and are not interpolated.

Checked against the released code with its weights carried over, on full-length random features: logits, distances,
targets and both losses agree to 3e-6; the numbers of parameters are the same (29.25M and, for one class, 6.94M).

Measured here: ``filmstrip train localisation.actionformer`` (embeddings with noise in place of features) reaches
98, 98, 98, 95 and 89% mAP at overlaps of 0.3 to 0.7, 95.5% on average, over 20 synthetic videos.
``filmstrip claims actionformer_pyramid`` (actions of 2 to 96 rows, mean of three seeds): six levels reach 91.4% on
average, three 66.9%, one 13.5%; attention to everything 90.7%, for 4.4 times the multiply-adds on long videos.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, NamedTuple, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, NotEmpty, Rate, Share, ShareBelowOne, Weight
from filmstrip.data.config import Data, DataInfo
from filmstrip.data.kinds.untrimmed import UntrimmedInfo, UntrimmedVideos
from filmstrip.data.synthetic.untrimmed import Untrimmed
from filmstrip.errors import UserError
from filmstrip.evals.localisation import LocalisationMAP
from filmstrip.nn.attention import attend
from filmstrip.nn.drop_path import DropPath
from filmstrip.nn.masks import Mask, local, present
from filmstrip.nn.mlp import MLP
from filmstrip.nn.positions import sincos_table
from filmstrip.nn.segments import soft_nms
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Batch, Detections, Loss, Objective
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine
from filmstrip.weights.keymap import Rules, Weights, check_names, fitted, renamed, without_prefix

PRIOR = 0.01
"""The probability that a fresh network gives to every class."""
FINEST_REACH = 4
"""Rows to the further end of an action up to which the finest level answers; each level doubles it."""
_PARTS = ("query", "key", "value")
_PUBLISHED: Rules = (
    (r"^pyramid\.convs\.(\d)\.", r"backbone.embd.\1.conv."),
    (r"^pyramid\.conv_norms\.", "backbone.embd_norm."),
    (r"^pyramid\.norms\.", "neck.fpn_norms."),
    (r"^pyramid\.", "backbone."),
    (r"\.norm(\d)\.", r".ln\1."),
    *((rf"\.attention\.convs\.{i}\.", f".attn.{part}_conv.conv.") for i, part in enumerate(_PARTS)),
    *((rf"\.attention\.norms\.{i}\.", f".attn.{part}_norm.") for i, part in enumerate(_PARTS)),
    *((rf"\.attention\.projections\.{i}\.", f".attn.{part}.") for i, part in enumerate(_PARTS)),
    (r"\.attention\.out\.", ".attn.proj."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
    (r"\.scale1$", ".drop_path_attn.scale"),
    (r"\.scale2$", ".drop_path_mlp.scale"),
    (r"^class_head\.out\.", "cls_head.cls_head.conv."),
    (r"^distance_head\.out\.", "reg_head.offset_head.conv."),
    (r"^class_head\.", "cls_head."),
    (r"^distance_head\.", "reg_head."),
    (r"^(...)_head\.convs\.(\d)\.", r"\1_head.head.\2.conv."),
    (r"^(...)_head\.norms\.", r"\1_head.norm."),
)
"""Our names to those of the released weights; but for the levels' scales, which are a parameter each there."""
MOMENTUM = 0.9
"""Momentum of the running number of positive points, by which losses are divided."""


@dataclass(frozen=True, kw_only=True)
class Suppression:
    """Non-maximum suppression of candidates."""

    min_score: Weight
    """Minimum score, before and after suppression."""
    candidates: Count
    """Maximum number of candidates of each level of a video."""
    min_rows: Weight
    """Minimum length of a segment, rows."""
    sigma: Rate
    """Scale of the decay of scores with the overlap: the factor is ``exp(-iou^2 / sigma)``."""
    max_segments: Count
    """Maximum number of segments of a video."""


NUM_CONVS, STEM = 2, 2
"""Convolutions before the pyramid, and blocks of its finest level."""
SCALE = 1e-4
"""Initial factor of each channel of a residual branch (Touvron et al. 2021)."""


class Level(NamedTuple):
    """One level of a pyramid: ``features`` are ``B T D``, and ``valid`` (``B T``) says where there is video."""

    features: Tensor
    valid: Tensor


class MaskedConv(nn.Conv1d):
    """A convolution along time, padded to keep the length, that sees zeros where there is no video."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """``B T D -> B T/stride outputs``."""
        y = super().forward(rearrange(x.masked_fill(~valid[..., None], 0.0), "b t d -> b d t"))
        return rearrange(y, "b d t -> b t d")


class ConvAttention(nn.Module):
    """Multi-head attention whose queries, keys and values come from depthwise convolutions, ``stride`` rows apart."""

    def __init__(self, width: int, num_heads: int, *, stride: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.convs = nn.ModuleList(MaskedConv(width, width, stride=stride, groups=width) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.projections = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, valid: Tensor, mask: Mask) -> Tensor:
        """``B T D -> B T/stride D``; ``mask`` is of the shorter sequence."""
        q, k, v = (
            rearrange(project(norm(conv(x, valid))), "b t (h d) -> b h t d", h=self.num_heads)
            for conv, norm, project in zip(self.convs, self.norms, self.projections)
        )
        return self.out(rearrange(attend(q, k, v, mask), "b h t d -> b t (h d)"))


class PyramidBlock(nn.Module):
    """A pre-norm transformer block with :class:`ConvAttention`: ``B T D -> B T/stride D``."""

    def __init__(self, width: int, num_heads: int, *, stride: int, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.stride = stride
        self.norm1 = nn.LayerNorm(width)
        self.attention = ConvAttention(width, num_heads, stride=stride)
        self.scale1 = nn.Parameter(torch.full((width,), SCALE))
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width, dropout=dropout)
        self.scale2 = nn.Parameter(torch.full((width,), SCALE))
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, valid: Tensor, mask: Mask) -> Tensor:
        """Apply the block; ``valid`` is ``B T``, of the input."""
        attended = self.dropout(self.attention(self.norm1(x), valid, mask))
        x = self._shortened(x, valid) + self.drop_path(self.scale1 * attended)
        return x + self.drop_path(self.scale2 * self.dropout(self.mlp(self.norm2(x))))

    def _shortened(self, x: Tensor, valid: Tensor) -> Tensor:
        """The largest of three neighbours, of those where there is video."""
        if self.stride == 1:
            return x
        x = rearrange(x.masked_fill(~valid[..., None], float("-inf")), "b t d -> b d t")
        x = rearrange(F.max_pool1d(x, self.stride + 1, self.stride, self.stride // 2), "b d t -> b t d")
        return x.masked_fill(~valid[:, :: self.stride, None], 0.0)


class TemporalPyramid(nn.Module):
    """Convolutions, a stem of attention at full length, and for each further level a block that halves the length.

    ``windows`` says for each level how many rows, half of them on either side, a row attends to; none: all. What
    stands in padding reaches no other row.
    """

    def __init__(self, config: ActionFormerConfig) -> None:
        super().__init__()
        self.windows, self.positions = config.windows, config.positions
        width = config.width
        widths = (config.feature_width, *[width] * NUM_CONVS)
        self.convs = nn.ModuleList(MaskedConv(a, b) for a, b in pairwise(widths))
        self.conv_norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.convs)

        def block(stride: int) -> PyramidBlock:
            return PyramidBlock(
                width, config.num_heads, stride=stride, dropout=config.dropout, drop_path=config.drop_path
            )

        self.stem = nn.ModuleList(block(1) for _ in range(STEM))
        self.branch = nn.ModuleList(block(2) for _ in self.windows[1:])
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.windows)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, sequence: Tensor, length: Tensor) -> list[Level]:
        """The levels of ``B T D`` features, finest first; of each row the first ``length`` (``B``) count."""
        coarsest = 2 ** len(self.branch)
        x = F.pad(sequence, (0, 0, 0, -sequence.shape[1] % coarsest))
        valid = torch.arange(x.shape[1], device=x.device) < length[:, None]
        for conv, norm in zip(self.convs, self.conv_norms):
            x = norm(conv(x, valid)).relu()
        if self.positions:
            _, length, width = x.shape
            x = x + sincos_table(length, width).to(x) / width**0.5
        mask = self._mask(0, valid)
        for block in self.stem:
            x = block(x, valid, mask)
        levels = [Level(self.norms[0](x), valid)]
        for i, block in enumerate(self.branch, start=1):
            shorter = valid[:, ::2]
            x, valid = block(x, valid, self._mask(i, shorter)), shorter
            levels.append(Level(self.norms[i](x), valid))
        return levels

    def _mask(self, level: int, valid: Tensor) -> Mask:
        window = self.windows[level]
        return present(valid) if window is None else local(window // 2) & present(valid)


class Points(NamedTuple):
    """The points of a pyramid, level after level."""

    time: Tensor
    """``N``, rows of the sequence."""
    stride: Tensor
    """``N``, rows from one point of the level to the next."""
    reach: Tensor
    """``N 2``, minimum and maximum distance, in rows, to the further end of an action of the level."""


class Targets(NamedTuple):
    """The targets of each point of each video."""

    classes: Tensor
    """``B N C``, one where an action of that class is to be found."""
    distances: Tensor
    """``B N 2``, to its first and its last moment, in strides."""

    @property
    def positive(self) -> Tensor:
        """Whether a point has an action, ``B N``."""
        return self.classes.amax(dim=-1) > 0


def assign(points: Points, segments: Tensor, classes: Tensor, *, num_classes: int, radius: float) -> Targets:
    """Assign points to the actions ``segments`` (``B M 2``, rows) of ``classes`` (``B M``, -1 in padding).

    A point finds actions whose middle is less than ``radius`` strides away, within which it lies and whose ends are
    within its level's reach; of several the shortest (Tian et al. 2019, FCOS; Zhang et al. 2022).
    """
    time, stride = points.time[:, None], points.stride[:, None]
    first, last = (ends[:, None] for ends in segments.unbind(-1))
    distances = torch.stack([time - first, last - time], dim=-1)
    middle = (first + last) / 2
    after = time - torch.maximum(middle - radius * stride, first)
    before = torch.minimum(middle + radius * stride, last) - time
    furthest = distances.amax(dim=-1)
    minimum, maximum = (bound[:, None] for bound in points.reach.unbind(-1))
    found = (
        (torch.minimum(after, before) > 0) & (furthest >= minimum) & (furthest <= maximum) & (classes >= 0)[:, None]
    )
    lengths = (last - first).masked_fill(~found, float("inf"))
    shortest, which = lengths.min(dim=-1, keepdim=True)
    # Actions of several classes may have the same times.
    tied = found & (lengths <= shortest + 1e-3)
    kinds = F.one_hot(classes.clamp(min=0), num_classes).to(segments.dtype)
    distances = distances.gather(2, which[..., None].expand(-1, -1, -1, 2))[:, :, 0] / stride
    return Targets((tied.to(segments.dtype) @ kinds).clamp(max=1.0), distances)


def focal_loss(logits: Tensor, targets: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Cross-entropy of independent classes that counts less what is easy (Lin et al. 2017), elementwise."""
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = logits.sigmoid()
    missed = probability + targets - 2 * probability * targets
    return (alpha * targets + (1 - alpha) * (1 - targets)) * missed**gamma * entropy


def diou_loss(predicted: Tensor, true: Tensor, eps: float = 1e-8) -> Tensor:
    """One less the overlap of two segments around a point, plus how far their middles lie apart: ``... 2 -> ...``.

    Segments are given by the distances to both ends. The middles' distance is squared, as a share of what both
    cover (Zheng et al. 2020, distance IoU).
    """
    shared = torch.minimum(predicted, true).sum(dim=-1)
    either = predicted.sum(dim=-1) + true.sum(dim=-1) - shared
    covered = torch.maximum(predicted, true).sum(dim=-1)
    apart = ((predicted[..., 1] - predicted[..., 0]) - (true[..., 1] - true[..., 0])) / 2
    return 1 - shared / either.clamp(min=eps) + (apart / covered.clamp(min=eps)).square()


class Head(nn.Module):
    """Three convolutions, shared by all levels: ``B T D -> B T outputs``."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(MaskedConv(width, width) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.convs)
        self.out = MaskedConv(width, outputs, bias=True)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Apply it to one level."""
        for conv, norm in zip(self.convs, self.norms):
            x = norm(conv(x, valid)).relu()
        return self.out(x, valid)


class ActionFormer(Objective):
    """The pyramid with its heads; a :class:`~filmstrip.protocols.Localiser`."""

    requires = ("sequence", "length", "segments", "classes")

    def __init__(self, config: ActionFormerConfig) -> None:
        super().__init__()
        self.pyramid = TemporalPyramid(config)
        self.config = config
        self.feature_width = config.feature_width
        self.class_head = Head(config.width, config.num_classes)
        nn.init.constant_(self.class_head.out.bias, -math.log((1 - PRIOR) / PRIOR))
        self.distance_head = Head(config.width, 2)
        self.level_scales = nn.Parameter(torch.ones(len(config.windows)))
        self.register_buffer("num_positive", torch.tensor(float(config.first_normaliser)))

    def from_published(self, theirs: Mapping[str, Tensor]) -> Weights:
        """All weights but the running number of points, from a released state or file; averaged ones if it has them.

        Raises:
            UserError: the state is of another network.
        """
        theirs = without_prefix(theirs.get("state_dict_ema", theirs.get("state_dict", theirs)))
        ours = {name: value for name, value in self.state_dict().items() if name != "num_positive"}
        names = {name: renamed(name, _PUBLISHED) for name in ours if name != "level_scales"}
        scales = [f"reg_head.scale.{level}.scale" for level in range(len(self.level_scales))]
        check_names("this is not a released ActionFormer of this size: it", theirs, [*names.values(), *scales])
        # Norms, scales and linear layers are shaped for channels before time there.
        weights = {name: fitted(theirs[key], ours[name]) for name, key in names.items()}
        return weights | {"level_scales": torch.stack([theirs[key] for key in scales])}

    def look(self, sequence: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor, Points]:
        """Logits ``B N C``, distances ``B N 2`` in strides, where there is video ``B N``, and the ``N`` points."""
        levels = self.pyramid(sequence, length)
        logits = torch.cat([self.class_head(*level) for level in levels], dim=1)
        distances = torch.cat(
            [(scale * self.distance_head(*level)).relu() for scale, level in zip(self.level_scales, levels)], dim=1
        )
        valid = torch.cat([level.valid for level in levels], dim=1)
        return logits.float(), distances.float(), valid, _points(valid, len(levels))

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Focal loss of classes and distance-IoU loss of ends, both over the running number of positive points."""
        logits, distances, valid, points = self.look(batch["sequence"], batch["length"])
        c = self.config
        targets = assign(points, batch["segments"], batch["classes"], num_classes=c.num_classes, radius=c.radius)
        positive = targets.positive & valid
        count = positive.sum()
        if self.training:
            self.num_positive.lerp_(count.clamp(min=1).to(self.num_positive), 1 - MOMENTUM)
        smooth = targets.classes * (1 - c.label_smoothing) + c.label_smoothing / (c.num_classes + 1)
        classes = (focal_loss(logits, smooth) * valid[..., None]).sum() / self.num_positive
        # What is not positive has no distances: any will do, so long as their gradient is a number.
        true = targets.distances.where(positive[..., None], 1.0)
        ends = (diou_loss(distances, true) * positive).sum() / self.num_positive
        metrics = {"focal": classes.detach(), "diou": ends.detach(), "positive": count.float()}
        return Loss(classes + c.distance_weight * ends, metrics)

    @torch.no_grad()
    def localise(self, batch: Batch) -> list[Detections]:
        """The actions of each video."""
        logits, distances, valid, points = self.look(batch["sequence"], batch["length"])
        scores = (logits.sigmoid() * valid[..., None]).cpu()
        steps = distances * points.stride[:, None]
        segments = torch.stack([points.time - steps[..., 0], points.time + steps[..., 1]], dim=-1).cpu()
        sizes = torch.unique_consecutive(points.stride, return_counts=True)[1].tolist()
        timing, seconds = batch["timing"].cpu(), batch["seconds"].cpu()
        return [
            self._keep(scores[i].split(sizes), segments[i].split(sizes), timing[i], float(seconds[i]))
            for i in range(len(scores))
        ]

    def _keep(
        self, scores: tuple[Tensor, ...], segments: tuple[Tensor, ...], timing: Tensor, seconds: float
    ) -> Detections:
        """The best of one video, from the scores (``T C``) and segments (``T 2``) of each level."""
        keep = self.config.suppression
        candidates = []
        for score, segment in zip(scores, segments):
            best, index = score.flatten().topk(min(keep.candidates, score.numel()))
            row, kind = index // score.shape[1], index % score.shape[1]
            long = segment[row, 1] - segment[row, 0] > keep.min_rows
            used = long & (best > keep.min_score)
            candidates.append((segment[row[used]], best[used], kind[used]))
        rows, best, kind = (torch.cat(parts) for parts in zip(*candidates))
        which, best = soft_nms(
            rows, best, kind, sigma=keep.sigma, min_score=keep.min_score, max_segments=keep.max_segments
        )
        times = (timing[0] + rows[which].double() * timing[1]).clamp(0.0, seconds)
        return Detections(times, best, kind[which])


def _points(valid: Tensor, num_levels: int) -> Points:
    """The points of a pyramid whose levels, one after the other, have as many rows as ``valid`` (``B N``)."""
    finest = valid.shape[1] * 2 ** (num_levels - 1) // (2**num_levels - 1)
    times, strides, reaches = [], [], []
    for level in range(num_levels):
        stride, rows = 2**level, finest // 2**level
        minimum = FINEST_REACH * stride / 2 if level else 0.0
        maximum = FINEST_REACH * stride if level < num_levels - 1 else float("inf")
        times.append(stride * torch.arange(rows, device=valid.device, dtype=torch.float32))
        strides.append(torch.full((rows,), float(stride), device=valid.device))
        reaches.append(torch.tensor([minimum, maximum], device=valid.device).expand(rows, 2))
    return Points(torch.cat(times), torch.cat(strides), torch.cat(reaches))


@dataclass(frozen=True, kw_only=True)
class ActionFormerConfig(ObjectiveConfig):
    """The pyramid, its loss and its suppression."""

    num_classes: CountOrZero = 0
    """Number of classes; by default from the data."""
    feature_width: CountOrZero = 0
    """Channels of the features; by default from the data."""
    width: Count
    """Channels of a row in the pyramid."""
    num_heads: Count
    """Attention heads of a block."""
    windows: Annotated[tuple[Count | None, ...], NotEmpty]
    """Rows that a row attends to in each level of the pyramid; none: all."""
    positions: bool = False
    """Whether sines and cosines of the position are added."""
    dropout: ShareBelowOne = 0.0
    """Dropout rate within the blocks."""
    drop_path: ShareBelowOne = 0.0
    """Stochastic depth's rate."""
    radius: Rate
    """Strides around an action's middle within which points are to find it."""
    first_normaliser: Rate
    """Initial value of the running number of positive points, by which losses are divided."""
    label_smoothing: Share = 0.0
    """Probability that the loss spreads evenly over all classes."""
    distance_weight: Weight = 1.0
    """Weight of the loss of both ends."""
    suppression: Suppression
    """Non-maximum suppression of the candidates."""

    def bind(self, info: DataInfo) -> Self:
        """Take the classes and the width from the data."""
        if not isinstance(info, UntrimmedInfo):
            return self
        return replace(self, num_classes=len(info.classes), feature_width=info.width)

    def build(self) -> ActionFormer:
        """Build with fresh weights.

        Raises:
            UserError: the data has no features or no classes, or the network no levels.
        """
        if not (self.num_classes and self.feature_width and self.windows):
            raise UserError(
                "localisation needs features along videos and their actions: set data.reads to untrimmed videos, or "
                "objective.num_classes and objective.feature_width; and objective.windows for one level or more"
            )
        return ActionFormer(self)


def tiny() -> Run:
    """A narrow one on untrimmed synthetic videos, with embeddings for features; seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Untrimmed(),
            reads=UntrimmedVideos(max_length=160, window=8, noise=1.0, width=16),
            batch_size=8,
            num_workers=0,
        ),
        objective=ActionFormerConfig(
            width=48,
            num_heads=4,
            windows=(9, 9, 9, 9),
            radius=1.5,
            first_normaliser=50.0,
            dropout=0.1,
            suppression=Suppression(min_score=0.001, candidates=2000, min_rows=0.05, sigma=0.5, max_segments=50),
        ),
        optim=AdamW(lr=2e-3),
        train=Loop(length=Steps(150)),
        evals=(LocalisationMAP(),),
    )


def thumos14() -> Run:
    """THUMOS14, on features of I3D (RGB and flow, 16 frames, every 4): 35 epochs of two videos a step."""
    return Run(
        data=Data(
            reads=UntrimmedVideos(dataset="thumos14", max_length=2304, crop=0.9),
            batch_size=2,
        ),
        objective=ActionFormerConfig(
            num_classes=20,
            feature_width=2048,
            width=512,
            num_heads=4,
            windows=(19,) * 6,
            drop_path=0.1,
            radius=1.5,
            first_normaliser=100.0,
            suppression=Suppression(min_score=0.001, candidates=2000, min_rows=0.05, sigma=0.5, max_segments=200),
        ),
        optim=AdamW(lr=1e-4, weight_decay=0.05, schedule=Cosine(warmup=5 / 35)),
        train=Loop(length=Epochs(35), ema=0.999),
        evals=(LocalisationMAP(),),
    )


def activitynet() -> Run:
    """ActivityNet 1.3, on features of TSP (16 frames at 15 a second), 192 of each video: 15 epochs of 16 videos."""
    return Run(
        data=Data(
            reads=UntrimmedVideos(dataset="activitynet", max_length=192, resized=True, crop=0.9, stride=16, fps=15.0),
            batch_size=16,
        ),
        objective=ActionFormerConfig(
            num_classes=200,
            feature_width=512,
            width=256,
            num_heads=4,
            windows=(7, 7, 7, 7, 7, None),
            positions=True,
            drop_path=0.1,
            radius=1.5,
            first_normaliser=200.0,
            label_smoothing=0.1,
            distance_weight=2.0,
            suppression=Suppression(min_score=0.001, candidates=2000, min_rows=0.001, sigma=0.75, max_segments=100),
        ),
        optim=AdamW(lr=1e-3, weight_decay=0.05, schedule=Cosine(warmup=5 / 15)),
        train=Loop(length=Epochs(15), ema=0.999),
        evals=(LocalisationMAP(thresholds=tuple(round(0.5 + 0.05 * i, 2) for i in range(10))),),
    )

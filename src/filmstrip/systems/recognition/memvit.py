"""MeMViT: a multiscale transformer that reads a long video clip by clip, and remembers.

In every other layer a clip attends to its own keys and values and to those of the clips before, which were kept,
pooled but not projected, and compressed once (pipelined): every clip costs the same. Wu et al., "MeMViT:
Memory-Augmented Multiscale Vision Transformer for Efficient Long-Term Video Recognition", CVPR 2022.

    filmstrip train recognition.memvit:base_16x4_k400 --data.path PATH

Where we deviate: the published loop goes through all videos in order, a step a clip; here a sample is several clips
in a row, read in order, whose losses are averaged: samples stay shuffled and no memory outlives a step. Memory of
another video is left out of the attention (published: set to zero, and still attended to). The paper detects actions
on AVA; these presets classify clips, as its networks are pretrained to. Of the published 35.4M parameters 34.9M are
here: the rest is compression in the layers that do not use it, and the head for boxes.

The paper reports, AVA v2.2 (mAP, pretrained on Kinetics-400, Table 3): 27.0 without and 29.3 with memory, for 57.4
and 58.7 G multiply-adds a clip; MViT-24 32 x 3 pretrained on Kinetics-700 32.5 and 34.4, for 204.4 and 211.7 G.
Counted here: 57.2 and 58.5 G, 205.1 and 212.4 G. ``filmstrip claims memvit_memory`` re-runs it small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.mvit import MViT, MViTArchitecture, Plan
from filmstrip.nn.attention import attend
from filmstrip.nn.pooling_attention import Pool, PoolingAttention
from filmstrip.nn.relative_positions import decomposed_scores, table_between
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.protocols import Batch, Features, Grid, Layout, Loss, check_video
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine


class LayerMemory:
    """One layer's memory of the last ``length`` clips: pooled keys and values before projection, ``B 1+M D`` each.

    All but the newest are compressed; nothing here carries a gradient.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def push(self, keys: Tensor, values: Tensor) -> None:
        """Add the newest clip's, and forget the oldest when there are more than ``length``."""
        self.keys.append(keys.detach())
        self.values.append(values.detach())
        del self.keys[: -self.length], self.values[: -self.length]


class MemoryAttention(PoolingAttention):
    """Pooling attention before projection, with the keys and values of up to ``length`` earlier clips beside its own.

    Each clip is compressed once, when the next one comes, by learnt convolutions of ``compress`` positions (t, h, w);
    older ones are kept as they were then (pipelined), so that a clip costs the same however long the video. Memory
    has relative positions of its own, in time from the newest of its frames.
    """

    def __init__(
        self,
        width: int,
        outputs: int,
        num_heads: int,
        *,
        grid: Grid,
        q_stride: Sequence[int],
        kv_stride: Sequence[int],
        length: int,
        compress: tuple[int, int, int] = (4, 2, 2),
    ) -> None:
        super().__init__(
            width,
            outputs,
            num_heads,
            grid=grid,
            q_stride=q_stride,
            kv_stride=kv_stride,
            relative=True,
            residual=True,
            pool_first=True,
        )
        if grid.t % compress[0]:
            raise ValueError(f"{grid.t} temporal positions are not a multiple of the stride {compress[0]}")
        kernel = tuple(2 * s - 1 for s in compress)
        self.compress = compress
        self.compress_k, self.compress_v = Pool(width, compress, kernel), Pool(width, compress, kernel)
        size, head_dim = grid.h // q_stride[1], outputs // num_heads
        self.memory_time = nn.Parameter(torch.empty((length + 1) * grid.t - 1, head_dim))
        self.memory_height, self.memory_across = (nn.Parameter(torch.empty(2 * size - 1, head_dim)) for _ in "hw")
        for table in (self.memory_time, self.memory_height, self.memory_across):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(
        self, x: Tensor, grid: Grid, memory: LayerMemory | None = None, same_video: Tensor | None = None
    ) -> tuple[Tensor, Grid]:
        """Attend from ``B 1+N D`` tokens to themselves and to ``memory``, which then holds them too.

        ``same_video`` (``B clips``) says which of the remembered clips are of the sample's video; others are not
        seen.
        """
        if memory is None:
            return super().forward(x, grid)
        q, k, v, q_grid, k_grid = self._pooled(x, grid)
        k, v = (rearrange(y, "b h n d -> b n (h d)") for y in (k, v))
        q = self._project(q, self.q)
        keys, values, seen = [k], [v], len(memory.keys)
        bias = F.pad(self.positions(q[:, :, 1:], q_grid, k_grid), (1, 0, 1, 0))
        if seen:
            memory_grid = self._compress(memory, k_grid)
            keys, values = [*memory.keys, k], [*memory.values, v]
            past = self._memory_bias(q, q_grid, memory_grid, seen)
            if same_video is not None:
                count = past.shape[3] // seen
                past = past.masked_fill(~same_video.repeat_interleave(count, dim=1)[:, None, None], float("-inf"))
            bias = torch.cat([past, bias], dim=3)
            memory.keys[-1], memory.values[-1] = memory.keys[-1].detach(), memory.values[-1].detach()
        memory.push(k, v)
        k, v = (
            rearrange(linear(torch.cat(parts, dim=1)), "b n (h d) -> b h n d", h=self.num_heads)
            for linear, parts in ((self.k, keys), (self.v, values))
        )
        return self._result(q, attend(q, k, v, bias=bias)), q_grid

    def _compress(self, memory: LayerMemory, grid: Grid) -> Grid:
        """Put the newest clip's compressed keys and values in place of the full ones; returns their grid."""
        keys, small = self.compress_k(memory.keys[-1][:, None], grid)
        values, _ = self.compress_v(memory.values[-1][:, None], grid)
        memory.keys[-1], memory.values[-1] = keys[:, 0], values[:, 0]
        return small

    def _memory_bias(self, q: Tensor, q_grid: Grid, grid: Grid, seen: int) -> Tensor:
        """The bias for ``seen`` clips on ``grid``, oldest first, ``B H 1+Q seen(1+M)``; class tokens come first."""
        i = torch.arange(q_grid.t, device=q.device)
        age = torch.arange(seen * grid.t - 1, -1, -1, device=q.device)
        time = self.memory_time[i[:, None] + self.compress[0] * age]
        height = table_between(self.memory_height, q_grid.h, grid.h)
        across = table_between(self.memory_across, q_grid.w, grid.w)
        scores = decomposed_scores(q[:, :, 1:], q_grid, time, height, across)
        scores = rearrange(scores, "b h n (clips m) -> b h n clips m", clips=seen)
        return F.pad(scores, (1, 0, 0, 0, 1, 0)).flatten(3)


class Memory:
    """A :class:`MeMViT`'s memory of the videos that it is reading, ``B`` of them at a time."""

    def __init__(self, layers: int, length: int) -> None:
        self.layers = [LayerMemory(length) for _ in range(layers)]
        self.length = length
        self.same_video: Tensor | None = None
        """Whether each remembered clip is of the sample's present video, ``B clips``, oldest first."""

    def start(self, batch: int, new_video: Tensor | None, device: torch.device) -> None:
        """Make ready for the next clips; where ``new_video`` (``B``) is true, what is remembered is of another."""
        if self.same_video is None:
            self.same_video = torch.zeros(batch, 0, dtype=torch.bool, device=device)
        if self.same_video.shape[0] != batch:
            raise ValueError(
                f"this memory is of {self.same_video.shape[0]} videos read side by side, got {batch} clips"
            )
        if new_video is not None:
            self.same_video = self.same_video & ~new_video[:, None]

    def end(self) -> None:
        """The clips have been read: they are remembered, and the oldest forgotten."""
        newest = self.same_video.new_ones(self.same_video.shape[0], 1)
        self.same_video = torch.cat([self.same_video, newest], dim=1)[:, -self.length :]


class MeMViT(MViT):
    """An :class:`~filmstrip.protocols.Encoder` of video of any number of clips, in some of whose layers a clip also
    sees the ``memory`` clips before it.

    Wu et al. 2022. Every clip costs the same, and layer upon layer what it sees reaches further back: ``L`` layers
    with ``M`` clips of memory see ``L M`` clips. The tokens of all clips lie one after the other in time.
    """

    def __init__(self, config: MeMViTConfig) -> None:
        self.memory_length = config.memory
        self.memory_layers = tuple(range(0, config.depth, config.memory_every))
        super().__init__(config)

    def _attention(self, index: int, sizes: Plan) -> PoolingAttention:
        shape = (sizes.width, sizes.attention_width, sizes.num_heads)
        strides = {"grid": sizes.grid, "q_stride": sizes.q_stride, "kv_stride": sizes.kv_stride}
        if index in self.memory_layers:
            return MemoryAttention(*shape, **strides, length=self.memory_length)
        return PoolingAttention(*shape, **strides, relative=True, residual=True, pool_first=True)

    def layouts(self) -> tuple[Layout, ...]:
        """MViT's; its files hold parameters of memory in every layer, also in those that have none."""
        layers = "|".join(map(str, self.memory_layers))
        idle = rf"blocks\.(?!(?:{layers})\.)\d+\.attn\.(?:(?:norm_)?compress_[kv]\..*|rel_pos_mem_[thw])"
        return tuple(replace(layout, spare=(idle,)) for layout in super().layouts())

    def new_memory(self) -> Memory:
        """The memory of one that has seen nothing."""
        return Memory(len(self.memory_layers), self.memory_length)

    def read(
        self, clip: Tensor, memory: Memory, *, new_video: Tensor | None = None, layers: bool = False
    ) -> Features:
        """Encode the next clip of each video, ``B T C H W``, in the light of ``memory``, which then holds it too.

        ``new_video`` (``B``, true or false) says whose clip is the first of another video: it sees no memory.

        Raises:
            ValueError: the clip is not of the size that the network was built for, or the memory of other videos.
        """
        tokens, grid = self._embedded(clip)
        memory.start(clip.shape[0], new_video, clip.device)
        remembered = iter(memory.layers)
        seen = []
        for block in self.blocks:
            past = (next(remembered), memory.same_video) if isinstance(block.attention, MemoryAttention) else ()
            tokens, grid = block(tokens, grid, *past)
            if layers:
                seen.append(tokens[:, 1:])
        memory.end()
        return self._features(tokens, grid, seen)

    def clips(self, video: Tensor, layers: bool = False) -> Iterator[Features]:
        """The features of each clip of ``B T C H W`` video in order, each read with the ones before in memory.

        Raises:
            ValueError: the frames are not a whole number of clips.
        """
        check_video(video)
        length = self.clip[0]
        if video.shape[1] % length:
            raise ValueError(f"{video.shape[1]} frames are not a whole number of clips of {length}")
        memory = self.new_memory()
        for clip in video.split(length, dim=1):
            yield self.read(clip, memory, layers=layers)

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video of any number of clips; the class token is the last's, which has seen most.

        Raises:
            ValueError: the frames are not a whole number of clips, or of another size than the network's.
        """
        parts = list(self.clips(video, layers))
        grid = parts[0].grid
        return replace(
            parts[-1],
            tokens=torch.cat([part.tokens for part in parts], dim=1),
            grid=Grid(len(parts) * grid.t, grid.h, grid.w),
            layers=tuple(torch.cat(tokens, dim=1) for tokens in zip(*(part.layers for part in parts))),
        )


class ClipByClip(Classification):
    """Classifies each clip of a video after reading the ones before; the last clip's prediction is the video's."""

    takes_labels = ("class",)

    def logits(self, video: Tensor) -> Tensor:
        """Logits of each clip of ``B T C H W`` video, ``B clips K``."""
        pooled = torch.stack([clip.pooled() for clip in self.encoder.clips(video)], dim=1)
        return self.head(self.dropout(self.norm(pooled)))

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Cross-entropy, the mean over clips; also logs the first clip's accuracy and the last's."""
        logits, label = self.logits(batch["video"]).float(), batch["label"]
        losses = [self.compare(clip, label) for clip in logits.unbind(1)]
        total = torch.stack([loss.total for loss in losses]).mean()
        return Loss(total, {"first_top1": losses[0].metrics["top1"], "top1": losses[-1].metrics["top1"]})


@dataclass(frozen=True, kw_only=True)
class MeMViTConfig(MViTArchitecture, ClassificationConfig):
    """A multiscale transformer with memory, and a linear classifier on each clip's class token.

    A sample is as many clips in a row as it has frames for.
    """

    memory: CountOrZero = 2
    """Earlier clips in the memory of a layer."""
    memory_every: Count = 1
    """Layers from one that has memory to the next, beginning with the first."""

    def for_clip(self, clip: Clip) -> Self:
        """A sample of several of its own clips stays one; of any other length it is one clip, with nothing before."""
        num_frames = clip.num_frames if clip.num_frames % self.num_frames else self.num_frames
        return replace(self, num_frames=num_frames, size=clip.size)

    def build(self) -> ClipByClip:
        """Build the network with fresh weights."""
        return ClipByClip(MeMViT(self), self)


def tiny() -> Run:
    """Eight motions at 32 x 32 pixels, in three clips of 8 frames; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=24, stride=1, size=32, short_side=(32, 32)),
            batch_size=16,
        ),
        objective=MeMViTConfig(
            width=32,
            depth=3,
            stages=(1,),
            kv_stride=(1, 4, 4),
            num_frames=8,
            size=32,
            summary="mean",
            linear_init="glorot",
            memory=2,
            memory_every=2,
            label_smoothing=0.1,
            num_classes=8,
        ),
        optim=AdamW(lr=5e-4),
        train=Loop(length=Steps(100)),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def _k400(network: MeMViTConfig, *, stride: int) -> Run:
    """Kinetics-400: a sample is a clip and as many before it as are remembered."""
    return Run(
        data=Data(
            clip=Clip(
                num_frames=network.num_frames * (network.memory + 1),
                stride=stride,
                size=network.size,
                crop="random_resized",
                area=(0.08, 1.0),
            ),
            augment=Augment(rand_ops=4, rand_magnitude=7.0, mixup=0.8, cutmix=1.0, erase=0.25),
            batch_size=256,
            clips_per_video=2,
            num_workers=10,
        ),
        objective=network,
        optim=AdamW(lr=1e-4, weight_decay=0.05, schedule=Cosine(warmup=30 / 200, final=0.01)),
        train=Loop(length=Epochs(200), precision="bfloat16"),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


BASE = MeMViTConfig(
    width=96,
    depth=16,
    stages=(1, 3, 14),
    kv_stride=(1, 8, 8),
    num_frames=16,
    size=224,
    drop_path=0.2,
    dropout=0.5,
    memory=2,
    memory_every=2,
    label_smoothing=0.1,
    num_classes=400,
)


def base_16x4_k400() -> Run:
    """16 layers, clips of 16 frames 4 apart, two remembered: 58.7 G multiply-adds for a clip with full memory."""
    return _k400(BASE, stride=4)


def base24_32x3_k400() -> Run:
    """24 layers, clips of 32 frames 3 apart, two remembered: 211.7 G multiply-adds for a clip with full memory."""
    return _k400(replace(BASE, depth=24, stages=(2, 5, 21), num_frames=32, drop_path=0.3), stride=3)

"""SlowFast: one network sees few frames with many channels, a second many frames with few, and tells the first.

What things are changes slowly and needs capacity; how they move changes fast and needs frames. Feichtenhofer et al.,
"SlowFast Networks for Video Recognition", ICCV 2019.

    filmstrip train recognition.slowfast:r50_4x16_k400 --data.path PATH

A clip is what the fast network sees: ``r50_4x16`` reads 32 frames, 2 apart, of which the slow network takes 4, about
16 apart. Where we deviate: the warm-up is linear from zero; a single cosine; epochs of a video each.

The ResNet-101 convolves over time in the first 6 of the third stage's 23 blocks, which makes 53.8M parameters.

The released weights have, on Kinetics-400 (top-1): 75.6 (``r50_4x16``), 77.0 (``r50_8x8``); the slow pathway alone
72.7 with 4 frames.

Measured here (``filmstrip claims slowfast_pathways``, mean of three seeds; motions that slow frames miss, chance
12.5): slow 26.8, with twice the frames 43.3, slow and fast 66.7.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from einops import reduce
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, NotEmpty
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.resnet3d import DEPTHS, PIXEL_MEAN, PIXEL_STD, init_conv, stage, stem
from filmstrip.nn.conv import TemporalConv, channels_first, tokens_of
from filmstrip.nn.normalise import Normalise
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.protocols import Features, Grid, Layout, Rules, check_video
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import SGD, AdamW
from filmstrip.train.schedules import Cosine
from filmstrip.weights import pytorchvideo

_SLOW_FRAMES = (1, 1, 3, 3)


class SlowFast(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder` of two residual networks that see the same clip.

    The fast one sees all frames, the slow one every ``speed_ratio``-th. After the stem and after each stage but the
    last, frames of the fast one are brought to the slow one's rate, with twice their channels, and put beside its
    own. A token holds the slow network's channels, then the fast one's, their mean over the frames that the slow one
    left out: the mean over tokens is what the published head pools.
    """

    def __init__(self, config: SlowFastConfig) -> None:
        super().__init__()
        self.depth = len(config.depths)
        self.speed_ratio = config.speed_ratio
        self.normalise = Normalise(PIXEL_MEAN, PIXEL_STD)
        slow, fast = config.stem_width, config.stem_width // config.narrower
        self.slow_stem = stem(3, slow, frames=1)
        self.fast_stem = stem(3, fast, frames=5)
        self.slow_stages, self.fast_stages, self.fusions = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for i, depth in enumerate(config.depths):
            self.fusions.append(Fusion(fast, frames=config.fusion_frames, stride=config.speed_ratio))
            width = 4 * config.stem_width * 2**i
            finer = config.dilated and i == len(config.depths) - 1
            both = {
                "depth": depth,
                "stride": 2 if i and not finer else 1,
                "dilation": 2 if finer else 1,
                "with_time": config.with_time[i] if config.with_time else None,
            }
            self.slow_stages.append(stage(slow + 2 * fast, width, frames=(_SLOW_FRAMES[i],), **both))
            self.fast_stages.append(stage(fast, width // config.narrower, frames=(3,), **both))
            slow, fast = width, width // config.narrower
        self.width = slow + fast

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T 3 H W`` video; ``layers`` also returns each stage's tokens, on grids and widths of its own.

        Raises:
            ValueError: the frames are no multiple of ``speed_ratio``.
        """
        check_video(video)
        if video.shape[1] % self.speed_ratio:
            raise ValueError(f"{video.shape[1]} frames are not a multiple of the speed ratio, {self.speed_ratio}")
        x = channels_first(self.normalise(video))
        slow, fast = self.slow_stem(self._every_nth(x)), self.fast_stem(x)
        seen = []
        for slow_stage, fast_stage, fusion in zip(self.slow_stages, self.fast_stages, self.fusions):
            slow, fast = slow_stage(torch.cat([slow, fusion(fast)], dim=1)), fast_stage(fast)
            if layers:
                seen.append(self._joined(slow, fast))
        return Features(self._joined(slow, fast), Grid(*slow.shape[2:]), tuple(seen))

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: 0 for the stems, ``i + 1`` for stage ``i`` and the fusion before it."""
        part, _, rest = name.partition(".")
        return int(rest.split(".")[0]) + 1 if part in ("slow_stages", "fast_stages", "fusions") else 0

    def layouts(self) -> tuple[Layout, ...]:
        """PyTorchVideo's and the SlowFast code base's."""
        return pytorchvideo.layouts(_names(pytorchvideo.HUB, self.depth), _names(pytorchvideo.SLOWFAST, self.depth))

    def _every_nth(self, x: Tensor) -> Tensor:
        """The slow network's frames: spread from the first to the last, as the published networks take them."""
        count = x.shape[2] // self.speed_ratio
        index = [i * (x.shape[2] - 1) // max(count - 1, 1) for i in range(count)]
        return x[:, :, index].contiguous(memory_format=torch.channels_last_3d)

    def _joined(self, slow: Tensor, fast: Tensor) -> Tensor:
        """Tokens ``B N D`` of both."""
        return tokens_of(
            torch.cat([slow, reduce(fast, "b c (t n) h w -> b c t h w", "mean", t=slow.shape[2])], dim=1)
        )


class Fusion(nn.Sequential):
    """From the fast network to the slow one: ``B C T H W -> B 2C T/stride H W``."""

    def __init__(self, inputs: int, *, frames: int, stride: int) -> None:
        outputs = 2 * inputs
        conv = TemporalConv(inputs, outputs, kernel=frames, stride=stride)
        init_conv(conv)
        super().__init__(conv, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True))


def _names(layout: str, depth: int) -> Rules:
    """Ours to those of a layout, of a network of ``depth`` stages."""
    hub = layout == pytorchvideo.HUB
    rules = [(r"^head\.", "blocks.6.proj." if hub else "head.projection.")]
    for pathway, ours in enumerate(("slow", "fast")):
        part = f"multipathway_blocks.{pathway}"
        stem = f"blocks.0.{part}" if hub else f"s1.pathway{pathway}_stem"
        rules += pytorchvideo.stem_rules(layout, f"{ours}_stem", stem)
        for i in range(depth):
            stage = rf"blocks.{i + 1}.{part}.res_blocks.\1." if hub else rf"s{i + 2}.pathway{pathway}_res\1."
            rules.append((rf"^{ours}_stages\.{i}\.(\d+)\.", stage))
    for i in range(depth):
        fusion = f"blocks.{i}.multipathway_fusion" if hub else f"s{i + 1}_fuse"
        for part, name in enumerate(("conv_fast_to_slow", "norm") if hub else ("conv_f2s", "bn")):
            rules.append((rf"^fusions\.{i}\.{part}\.", f"{fusion}.{name}."))
    return (*rules, *pytorchvideo.bottleneck_rules(layout))


@dataclass(frozen=True, kw_only=True)
class SlowFastConfig(ClassificationConfig):
    """Two residual networks of bottlenecks."""

    stem_width: Count
    """Channels of the slow network's first stage."""
    depths: Annotated[tuple[Count, ...], NotEmpty]
    """Bottlenecks of each stage."""
    speed_ratio: Count
    """Frames of the fast network for each one of the slow network (alpha)."""
    narrower: Count
    """Factor from the fast network's channels to the slow network's (1 / beta)."""
    fusion_frames: Count
    """Kernel in time of the convolutions from the fast network to the slow one."""
    with_time: tuple[CountOrZero, ...] | None = None
    """Number of blocks of each stage that convolve over time; by default all of those stages that do."""
    dilated: bool = False
    """Whether the last stage keeps height and width and dilates its 3 x 3 convolutions, which makes the map twice as
    fine, for detection."""

    def build(self) -> Classification:
        """Build the network with fresh weights."""
        return Classification(SlowFast(self), self)


def tiny() -> Run:
    """Eight motions at 64 x 64 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=SlowFastConfig(
            stem_width=16, depths=(1, 1, 1), speed_ratio=4, narrower=4, fusion_frames=5, num_classes=8
        ),
        optim=AdamW(lr=3e-3),
        train=Loop(length=Steps(100)),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def r50_4x16_k400() -> Run:
    """ResNet-50, 4 slow and 32 fast frames, on Kinetics-400 from scratch: 34.5M parameters."""
    return Run(
        data=Data(
            clip=Clip(num_frames=32, stride=2, size=224, short_side=(256, 340)),
            augment=Augment(),
            batch_size=1024,
            num_workers=10,
        ),
        objective=SlowFastConfig(
            stem_width=64, depths=DEPTHS[50], speed_ratio=8, narrower=8, fusion_frames=5, dropout=0.5, num_classes=400
        ),
        optim=SGD(lr=1.6, weight_decay=1e-4, schedule=Cosine(warmup=34 / 256)),
        train=Loop(length=Epochs(256), precision="bfloat16", clip_grad=None),
        evals=(MultiView(num_clips=10, num_crops=3),),
    )


def r50_8x8_k400() -> Run:
    """ResNet-50, 8 slow and 32 fast frames: 34.6M parameters."""
    run = r50_4x16_k400()
    return replace(run, objective=replace(run.objective, speed_ratio=4, fusion_frames=7))


def r101_8x8_k400() -> Run:
    """ResNet-101, 8 slow and 32 fast frames: 53.8M parameters."""
    run = r50_8x8_k400()
    return replace(run, objective=replace(run.objective, depths=DEPTHS[101], with_time=(3, 4, 6, 3)))


def r101_16x8_k400() -> Run:
    """ResNet-101, 16 slow and 64 fast frames, without the nonlocal blocks of the paper's best."""
    run = r101_8x8_k400()
    objective = replace(run.objective, fusion_frames=5)
    return replace(
        run, data=replace(run.data, clip=replace(run.data.clip, num_frames=64, stride=2)), objective=objective
    )

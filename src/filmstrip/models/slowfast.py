"""SlowFast: a wide network on few frames, fed by a narrow one on many (Feichtenhofer et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import reduce
from torch import Tensor, nn

from filmstrip.models.resnet3d import DEPTHS, PIXEL_MEAN, PIXEL_STD, init_conv, stage, stem
from filmstrip.nn.conv import TemporalConv, channels_first, tokens_of
from filmstrip.nn.normalise import Normalise
from filmstrip.protocols import Features, Grid, check_video

_SLOW_FRAMES = (1, 1, 3, 3)


class SlowFast(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder` of two residual networks that see the same clip.

    The fast one sees all frames, with ``1 / narrower`` of the channels; the slow one every ``speed_ratio``-th. After
    the stem and after each stage but the last, ``fusion_frames`` frames of the fast one are brought to the slow one's
    rate, with twice their channels, and put beside its own. ``with_time`` limits the blocks of each stage that
    convolve over time. ``dilated`` keeps height and width in the last stage, whose 3 x 3 convolutions then see as far
    by leaving out every other place: where things are is told twice as finely, as detection wants it. A token holds
    the slow network's channels, then the fast one's, their mean over the frames that the slow one left out: the mean
    over tokens is what the published head pools.
    """

    def __init__(
        self,
        *,
        stem_width: int = 64,
        depths: Sequence[int] = DEPTHS[50],
        speed_ratio: int = 8,
        narrower: int = 8,
        fusion_frames: int = 5,
        with_time: Sequence[int] | None = None,
        dilated: bool = False,
    ) -> None:
        super().__init__()
        self.depth = len(depths)
        self.speed_ratio = speed_ratio
        self.normalise = Normalise(PIXEL_MEAN, PIXEL_STD)
        slow, fast = stem_width, stem_width // narrower
        self.slow_stem = stem(3, slow, frames=1)
        self.fast_stem = stem(3, fast, frames=5)
        self.slow_stages, self.fast_stages, self.fusions = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for i, depth in enumerate(depths):
            self.fusions.append(Fusion(fast, frames=fusion_frames, stride=speed_ratio))
            width = 4 * stem_width * 2**i
            finer = dilated and i == len(depths) - 1
            both = {
                "depth": depth,
                "stride": 2 if i and not finer else 1,
                "dilation": 2 if finer else 1,
                "with_time": with_time[i] if with_time else None,
            }
            self.slow_stages.append(stage(slow + 2 * fast, width, frames=(_SLOW_FRAMES[i],), **both))
            self.fast_stages.append(stage(fast, width // narrower, frames=(3,), **both))
            slow, fast = width, width // narrower
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

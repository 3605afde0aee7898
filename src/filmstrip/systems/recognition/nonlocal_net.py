"""Nonlocal network: a 3D residual network in which some blocks are followed by attention over all of space and time.

A convolution sees its neighbourhood; a nonlocal block lets every position gather from every other in one step. Wang
et al., "Non-local Neural Networks", CVPR 2018; ``insert_nonlocal`` puts a block into any other 3D network.

    filmstrip train recognition.nonlocal_net --data.path PATH

As published, the last normalisation of a block has its scale start at zero, so that the block starts as the identity.
Where we deviate: the network is the I3D-like ResNet-50 that the authors released later (5 x 7 x 7 stem, 3 x 1 x 1
kernels in every or every other block, frames halved after the first stage), with products divided by the root of
their length as in that release; the paper's formula does not. It trains from scratch here, not from inflated ImageNet
weights (``filmstrip.weights.inflate`` makes those).

Measured here (``filmstrip claims nonlocal_identity``): putting two blocks into a trained network changes no logit;
after as many steps again it names 46.6 of unseen motions and 47.6 without them, which is no difference (mean of five
seeds, chance 12.5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, NotEmpty
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.resnet3d import DEPTHS, PIXEL_MEAN, PIXEL_STD, stage, stem, width_of
from filmstrip.nn.attention import attend
from filmstrip.nn.conv import Window, channels_first, tokens_of
from filmstrip.nn.normalise import Normalise
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.protocols import Features, Grid, Layout, Rules, check_video
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import SGD, AdamW
from filmstrip.train.schedules import Cosine
from filmstrip.weights import pytorchvideo

Pairwise = Literal["embedded_gaussian", "dot_product", "concatenation"]


class NonLocal(nn.Module):
    """``z = W y + x``, where each position of ``y`` is a weighted sum over all positions (Wang et al. 2018, eq. 1 to
    6).

    ``pairwise`` says how two positions are compared: by the softmax of their embeddings' product, by that product
    over the number of positions, or by a layer that sees both embeddings side by side. The last normalisation's scale
    starts at zero, so that the block starts as the identity and fits into a trained network; ``identity_start`` False
    starts it at one. ``pool`` (t, h, w) pools the keys and values by their maxima.
    ``scaled`` divides products by the square root of ``inner`` before the softmax: the paper's formula does not, the
    networks that its authors published do.
    """

    def __init__(
        self,
        width: int,
        inner: int | None = None,
        *,
        pairwise: Pairwise = "embedded_gaussian",
        pool: tuple[int, int, int] | None = (1, 2, 2),
        scaled: bool = True,
        identity_start: bool = True,
    ) -> None:
        super().__init__()
        inner = inner or width // 2
        self.pairwise = pairwise
        self.scaled = scaled
        self.query = nn.Conv3d(width, inner, 1)
        self.key = nn.Conv3d(width, inner, 1)
        self.value = nn.Conv3d(width, inner, 1)
        self.compare = nn.Linear(2 * inner, 1, bias=False) if pairwise == "concatenation" else None
        self.out = nn.Conv3d(inner, width, 1)
        self.norm = nn.BatchNorm3d(width)
        self.pool = nn.MaxPool3d(pool) if pool is not None else nn.Identity()
        for conv in (self.query, self.key, self.value, self.out):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)
        if identity_start:
            nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``B C T H W`` to the same."""
        context = self.pool(x)
        q = rearrange(self.query(x), "b c t h w -> b (t h w) c")
        k, v = (rearrange(part(context), "b c t h w -> b (t h w) c") for part in (self.key, self.value))
        y = rearrange(self._weighted_sum(q, k, v), "b (t h w) c -> b c t h w", t=x.shape[2], h=x.shape[3])
        return x + self.norm(self.out(y))

    def window(self, size: tuple[int, int, int]) -> Window:
        """Every position sees all of an activation of ``size`` (t, h, w)."""
        return tuple(2 * n - 1 for n in size), (1, 1, 1)

    def _weighted_sum(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``B N C`` queries over ``B M C`` keys and values."""
        if self.pairwise == "embedded_gaussian":
            if not self.scaled:
                q = q * q.shape[-1] ** 0.5  # attention divides by it
            return attend(q[:, None], k[:, None], v[:, None])[:, 0]
        if self.pairwise == "dot_product":
            # Without a softmax the sums may be taken in either order; this one never makes the N x M matrix.
            return q @ (k.transpose(1, 2) @ v / k.shape[1])
        of_query, of_key = self.compare.weight[0].chunk(2)
        scores = F.relu((q @ of_query)[:, :, None] + (k @ of_key)[:, None, :])
        return scores @ v / k.shape[1]


def insert_nonlocal(network: nn.Module, name: str, block: NonLocal) -> None:
    """Let a block follow the module called ``name`` of any 3D network, whose weights stay as they are.

    The module's own weights are from then on called ``NAME.0``, the block's ``NAME.1``: load a network's weights
    first. A block that starts as the identity changes nothing at first.

    Raises:
        AttributeError: the network has no such module.
    """
    network.set_submodule(name, nn.Sequential(network.get_submodule(name), block))


class ResNet3D(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder`: a stem, four stages of bottlenecks (He et al. 2016).

    Height and width are halved by the stem, by its pooling and by each stage after the first.
    """

    def __init__(self, config: NonLocalNetConfig) -> None:
        super().__init__()
        self.depth = len(config.depths)
        self.normalise = Normalise(PIXEL_MEAN, PIXEL_STD)
        self.stem = stem(3, config.stem_width, frames=config.stem_frames)
        self.pool = nn.MaxPool3d((2, 1, 1)) if config.pool_frames else nn.Identity()
        self.stages = nn.ModuleList()
        inputs, width = config.stem_width, 4 * config.stem_width
        for i, (depth, kernels) in enumerate(zip(config.depths, config.frames, strict=True)):
            self.stages.append(stage(inputs, width, depth=depth, frames=kernels, stride=2 if i else 1))
            inputs, width = width, 2 * width
        self.width = inputs
        for i, (blocks, positions) in enumerate(zip(self.stages, config.nonlocal_after, strict=True)):
            for block in positions:
                nonlocal_block = NonLocal(width_of(blocks), pairwise=config.pairwise)
                insert_nonlocal(self, f"stages.{i}.{block}", nonlocal_block)

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T 3 H W`` video; ``layers`` also returns each stage's tokens, on grids and widths of its own."""
        check_video(video)
        x = self.stem(channels_first(self.normalise(video)))
        seen = []
        for i, blocks in enumerate(self.stages):
            x = blocks(x)
            if layers:
                seen.append(tokens_of(x))
            if i == 0:
                x = self.pool(x)
        return Features(tokens_of(x), Grid(*x.shape[2:]), tuple(seen))

    def depth_of(self, name: str) -> int:
        """The layer of a parameter of this network: 0 for the stem, ``i + 1`` for stage ``i``."""
        return int(name.split(".")[1]) + 1 if name.startswith("stages.") else 0

    def layouts(self) -> tuple[Layout, ...]:
        """PyTorchVideo's and the SlowFast code base's, whose first versions called a nonlocal block's norm ``bn``."""
        pooled = isinstance(self.pool, nn.MaxPool3d)
        hub, slowfast = (
            _names(layout, self.depth, pooled=pooled) for layout in (pytorchvideo.HUB, pytorchvideo.SLOWFAST)
        )
        known = pytorchvideo.layouts(hub, slowfast)
        old = (*known[1].rules, (r"(_nonlocal\d+)\.norm\.", r"\1.bn."))
        return (*known, replace(known[1], name="SlowFast's first", rules=old))


def _names(layout: str, depth: int, *, pooled: bool) -> Rules:
    """Ours to those of a layout, of ``depth`` stages; the hub counts a pooling as a block."""
    hub = layout == pytorchvideo.HUB
    rules = [
        (r"^head\.", f"blocks.{6 if pooled else 5}.proj." if hub else "head.projection."),
        *pytorchvideo.stem_rules(layout, "stem", "blocks.0" if hub else "s1.pathway0_stem"),
    ]
    nonlocal_parts = {"query": "conv_theta", "key": "conv_phi", "value": "conv_g", "out": "conv_out", "norm": "norm"}
    for i in range(depth):
        for ours, theirs in nonlocal_parts.items():
            rules.append((rf"^stages\.{i}\.(\d+)\.1\.{ours}\.", rf"s{i + 2}.pathway0_nonlocal\1.{theirs}."))
        number = i + 2 if pooled and i else i + 1
        stage = rf"blocks.{number}.res_blocks.\1." if hub else rf"s{i + 2}.pathway0_res\1."
        rules.append((rf"^stages\.{i}\.(\d+)\.(?:0\.)?(?=body|shortcut)", stage))
    return (*rules, *pytorchvideo.bottleneck_rules(layout))


@dataclass(frozen=True, kw_only=True)
class NonLocalNetConfig(ClassificationConfig):
    """An I3D-like residual network of bottlenecks with nonlocal blocks."""

    stem_width: Count
    """Channels of the first convolution."""
    depths: Annotated[tuple[Count, ...], NotEmpty]
    """Bottlenecks of each stage."""
    stem_frames: Count = 1
    """Kernel in time of the first convolution."""
    frames: tuple[tuple[Count, ...], ...]
    """Kernels in time of each stage's blocks, in turn."""
    nonlocal_after: tuple[tuple[CountOrZero, ...], ...]
    """The blocks of each stage, from 0, that a nonlocal block follows."""
    pairwise: Pairwise = "embedded_gaussian"
    """Comparison of two positions."""
    pool_frames: bool = False
    """Whether to take the maximum of every two frames after the first stage."""

    def build(self) -> Classification:
        """Build the network with fresh weights."""
        return Classification(ResNet3D(self), self)


def tiny() -> Run:
    """Eight motions at 64 x 64 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=NonLocalNetConfig(
            stem_width=8,
            depths=(1, 2, 1),
            stem_frames=5,
            frames=((3,), (3, 1), (1,)),
            nonlocal_after=((), (0,), (0,)),
            pool_frames=True,
            num_classes=8,
        ),
        optim=AdamW(lr=3e-3),
        train=Loop(length=Steps(100)),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def r50_k400() -> Run:
    """ResNet-50 with five blocks on Kinetics-400, 32 frames: 35.4M parameters."""
    return Run(
        data=Data(
            clip=Clip(num_frames=32, stride=2, size=224, short_side=(256, 320)),
            augment=Augment(),
            batch_size=64,
            num_workers=10,
        ),
        objective=NonLocalNetConfig(
            stem_width=64,
            depths=DEPTHS[50],
            stem_frames=5,
            frames=((3,), (3, 1), (3, 1), (1, 3)),
            nonlocal_after=((), (1, 3), (1, 3, 5), ()),
            pool_frames=True,
            dropout=0.5,
            num_classes=400,
        ),
        optim=SGD(lr=0.1, weight_decay=1e-4, schedule=Cosine(warmup=34 / 196)),
        train=Loop(length=Epochs(196), precision="bfloat16", clip_grad=None),
        evals=(MultiView(num_clips=10, num_crops=3),),
    )


def r50_8x8_k400() -> Run:
    """The same on 8 frames, 8 apart: the layout and clips of the released network."""
    run = r50_k400()
    return replace(run, data=replace(run.data, clip=replace(run.data.clip, num_frames=8, stride=8)))

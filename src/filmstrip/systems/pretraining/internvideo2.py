"""InternVideo2, stage 1: a few tokens of a clip, those that a teacher looks at, learn two frozen teachers' features.

One token in five is kept in every frame, drawn in proportion to how much an image teacher attends to it. The student
encodes these alone, and small heads on its last layers turn them into the features that the image teacher (one frame
of two) and a video teacher (all frames) have at their positions, and its pooled output into the image teacher's; the
loss is the cosine. Nothing masked is predicted. Wang et al., "InternVideo2: Scaling Foundation Models for Multimodal
Video Understanding", ECCV 2024, after its code; after Li et al., "Unmasked Teacher", ICCV 2023. Teachers are in
:mod:`filmstrip.objectives.teachers` and ``targets``.

    filmstrip train pretraining.internvideo2:one_b --data.path PATH \
        --objective.image-teacher-run RUN --objective.video-teacher-run RUN

Image teachers are networks of this file (``FrameEncoderConfig``, InternVL's form) or image transformers with a class
token (``vit``, ``vit_mae`` on the Hub), whose class token's attention in the last block then says where it looks.

Where we deviate: a clip has the video teacher's frames, of which student and image teacher see the first of each pair
(``patch_size``); random resized crops stand for multi-scale ones. The lecture on which this project builds lacks the
section on stage 1; its sizes and rates are those of the code.

The paper's evaluations of this stage are of networks of one and six billion weights: temporal localisation, average
mAP, THUMOS14 69.8 and 72.0, HACS 42.4 and 43.3. ``filmstrip claims internvideo2_saliency`` asks what it is
worth to look, ``internvideo2_alignment`` how alignment compares with masked prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import AnyNumber, Count, Rate, ShareBelowOne, Weight
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.models.video_transformer import FrameTransformer, layer_of
from filmstrip.models.vit import grid_of_tiles
from filmstrip.nn.attention import Attention, attend
from filmstrip.nn.drop_path import DropPath
from filmstrip.nn.initialisation import STD, LinearInit, init_linear
from filmstrip.nn.mlp import MLP
from filmstrip.nn.normalise import IMAGENET_MEAN, IMAGENET_STD
from filmstrip.nn.patches import PatchEmbed, conv_to_linear, linear_to_conv, take
from filmstrip.nn.positions import sincos_axes
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.targets import Teacher
from filmstrip.objectives.teachers import EncoderOnly, TaughtConfig, VideoTransformerConfig
from filmstrip.protocols import Batch, Features, Grid, Layout, Loss, Objective, check_video
from filmstrip.randomness import uniform
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine


@dataclass(frozen=True, kw_only=True)
class AlignedArchitecture:
    """The configuration of an :class:`AlignedEncoder`."""

    width: Count
    """Channels of a token."""
    depth: Count
    """Number of blocks."""
    num_heads: Count
    """Attention heads of a block."""
    num_frames: Count
    """Frames of a clip."""
    size: Count
    """Height and width of a clip, pixels."""
    patch_size: tuple[Count, Count, Count]
    """Frames for each token, of which the first one is seen, and height and width of a patch."""
    mlp_ratio: Rate = 4.0
    """Width of a feed-forward network, relative to that of its tokens."""
    drop_path: ShareBelowOne = 0.0
    """Stochastic depth's rate at the last block."""
    layer_scale: Rate = 1e-5
    """Initial factors of what attention and feed-forward networks add."""
    pool_width: Count = 768
    """Channels of the pooled output."""
    pool_num_heads: Count = 16
    """Attention heads that pool."""
    linear_init: LinearInit = "normal"
    """Initialisation of linear layers; ``glorot`` suits a narrow network that is trained from scratch."""
    mean: tuple[AnyNumber, AnyNumber, AnyNumber] = IMAGENET_MEAN
    """Mean RGB, subtracted from pixels in 0..1."""
    std: tuple[Rate, Rate, Rate] = IMAGENET_STD
    """Standard deviation of RGB, by which pixels are divided."""


class WholeNormAttention(Attention):
    """Self-attention without biases, whose queries and keys are normalised over all heads together."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__(width, num_heads, qkv_bias="none")
        self.q_norm = nn.RMSNorm(width, eps=1e-6)
        self.k_norm = nn.RMSNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """``B N D -> B N D``."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        parts = (self.q_norm(q), self.k_norm(k), v)
        q, k, v = (rearrange(part, "b n (h d) -> b h n d", h=self.num_heads) for part in parts)
        return self.out(rearrange(self.attend(q, k, v), "b h n d -> b n (h d)"))


class AlignedBlock(nn.Module):
    """A pre-norm block with RMS normalisation, whose branches begin at a small scale: ``B N D -> B N D``."""

    def __init__(self, config: AlignedArchitecture, drop_path: float) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.RMSNorm(width, eps=1e-6)
        self.attention = WholeNormAttention(width, config.num_heads)
        self.scale1 = nn.Parameter(torch.full((width,), config.layer_scale))
        self.norm2 = nn.RMSNorm(width, eps=1e-6)
        self.mlp = MLP(width, int(width * config.mlp_ratio))
        self.scale2 = nn.Parameter(torch.full((width,), config.layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        x = x + self.drop_path(self.scale1 * self.attention(self.norm1(x)))
        return x + self.drop_path(self.scale2 * self.mlp(self.norm2(x)))


class AttentionPool(nn.Module):
    """One vector for a set of tokens, whose mean attends to them: ``B N D -> B F``."""

    def __init__(self, width: int, output_width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_q, self.norm_k, self.norm_v = (nn.LayerNorm(width) for _ in range(3))
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, output_width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool the tokens."""
        q, k = self._queries_and_keys(tokens)
        v = self._heads(self.v(self.norm_v(tokens)))
        return self.out(rearrange(attend(q, k, v), "b h one d -> b (one h d)"))

    def weights(self, tokens: Tensor) -> Tensor:
        """How much each token counts, ``B N``: the mean over heads."""
        q, k = self._queries_and_keys(tokens)
        return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1).mean(dim=1)[:, 0]

    def _queries_and_keys(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        query = self.norm_q(tokens.mean(dim=1, keepdim=True))
        return self._heads(self.q(query)), self._heads(self.k(self.norm_k(tokens)))

    def _heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b n (h d) -> b h n d", h=self.num_heads)


class AlignedEncoder(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder` with a class token, learnt positions and a pooled output.

    Of the frames that belong to a token the first one is seen.
    """

    def __init__(self, config: AlignedArchitecture) -> None:
        super().__init__()
        self.width, self.depth = config.width, config.depth
        self.patch_size = tuple(config.patch_size)
        self.grid = grid_of_tiles(config.num_frames, config.size, self.patch_size)
        self.embed = PatchEmbed(config.width, (1, *self.patch_size[1:]), mean=config.mean, std=config.std)
        self.cls_token = nn.Parameter(torch.zeros(config.width))
        self.pos_embed = nn.Parameter(start_positions(self._positions(), config.width))
        rates = (config.drop_path * i / max(1, config.depth - 1) for i in range(config.depth))
        self.blocks = nn.ModuleList(AlignedBlock(config, rate) for rate in rates)
        self.pool = AttentionPool(config.width, config.pool_width, config.pool_num_heads)
        self._start(config.linear_init)

    def _positions(self) -> Grid:
        """The grid that has a position for each of its tokens."""
        return self.grid

    @torch.no_grad()
    def _start(self, how: LinearInit) -> None:
        """Random weights; those of a block's last layers are smaller the deeper it is."""
        init_linear(self, how)
        nn.init.trunc_normal_(self.cls_token, std=STD)
        for i, block in enumerate(self.blocks, 1):
            for layer in (block.attention.out, block.mlp.fc2):
                layer.weight /= (2 * i) ** 0.5

    def forward(self, video: Tensor, layers: bool = False, visible: Tensor | None = None) -> Features:
        """Encode ``B T C H W`` video into tokens ``B N D``; with ``layers`` also return each block's output.

        ``visible`` (``B K``, indices into the grid) encodes those positions alone: ``B K D``.
        """
        seen = self.layers(video, visible, count=self.depth if layers else 1)
        tokens = tuple(layer[:, 1:] for layer in seen)
        return Features(tokens[-1], self.grid, tokens if layers else ())

    def layers(self, video: Tensor, visible: Tensor | None = None, *, count: int) -> list[Tensor]:
        """The outputs of the last ``count`` blocks, ``B 1+N D`` each, the class token first.

        Raises:
            ValueError: the video has another size than the network was built for.
        """
        check_video(video, multiple=self.patch_size)
        grid = tuple(size // p for size, p in zip((video.shape[1], *video.shape[3:]), self.patch_size))
        if grid != self.grid:
            raise ValueError(
                f"this network was built for a grid of {tuple(self.grid)} tokens of {self.patch_size} pixels, got "
                f"{grid}: cut clips of the size that it was built for"
            )
        return self._run(video[:, :: self.patch_size[0]], visible, count)

    def _run(self, frames: Tensor, visible: Tensor | None, count: int) -> list[Tensor]:
        tokens = self.embed(frames, visible)
        positions = self.pos_embed[1:] if visible is None else F.embedding(visible, self.pos_embed[1:])
        cls = (self.cls_token + self.pos_embed[0]).expand(tokens.shape[0], 1, -1)
        x = torch.cat([cls.to(tokens.dtype), tokens + positions.to(tokens.dtype)], dim=1)
        seen = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i >= self.depth - count:
                seen.append(x)
        return seen

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: 0 for embedding and positions, ``i + 1`` for block ``i``, then what pools."""
        return self.depth + 1 if name.startswith("pool.") else layer_of(name, self.depth + 1)

    def layouts(self) -> tuple[Layout, ...]:
        """That of the authors' training: the student and its heads."""
        as_theirs = partial(_as_convolution, (1, *self.patch_size[1:]))
        after = (r"(?:clip|mae)_.*", r"final_clip_decoder\..*")
        return (
            Layout(
                name="pretraining",
                rules=_PUBLISHED,
                after=after,
                absent=(r"(?:image|video)_teacher\..*",),
                to_ours=_as_linear,
                to_theirs=as_theirs,
            ),
        )


class FrameEncoder(AlignedEncoder):
    """The same network on each frame alone, as an image teacher. Clips may have any length."""

    def _positions(self) -> Grid:
        return self.grid._replace(t=1)

    def forward(self, video: Tensor, layers: bool = False, visible: Tensor | None = None) -> Features:
        """Encode ``B T C H W`` video, frame by frame; its ``summary`` is the pooled output of each, ``B T F``.

        Raises:
            ValueError: tokens were chosen, which are those of a clip; or frames have another size.
        """
        if visible is not None:
            raise ValueError("an encoder of frames sees them whole")
        check_video(video, multiple=self.patch_size)
        seen = self.steps(video, count=self.depth if layers else 1)
        t = video.shape[1]
        tokens = tuple(rearrange(layer[:, 1:], "(b t) p d -> b (t p) d", t=t) for layer in seen)
        pooled = rearrange(self.pool(seen[-1]), "(b t) f -> b t f", t=t)
        return Features(tokens[-1], self.grid._replace(t=t), tokens if layers else (), pooled)

    def steps(self, video: Tensor, *, count: int) -> list[Tensor]:
        """The outputs of the last ``count`` blocks for each frame, ``(B T) 1+p D``, the class token first."""
        return self._run(rearrange(video, "b t c h w -> (b t) 1 c h w"), None, count)


def start_positions(grid: Grid, width: int) -> Tensor:
    """Initial positions, ``1+N width``: zeros for the class token, sines and cosines of the axes."""
    return torch.cat([torch.zeros(1, width), sincos_axes(grid, width)])


class Head(nn.Module):
    """Features of unit length from a layer's tokens, ``B N C -> B N D``: by a linear layer, or by a small MLP."""

    def __init__(self, width: int, output_width: int, *, mlp: bool = False) -> None:
        super().__init__()
        hidden = [nn.Linear(width, width), nn.GELU()] if mlp else []
        last = nn.Linear(width, output_width)
        self.head = nn.Sequential(*hidden, last) if mlp else last
        self.norm = nn.LayerNorm(output_width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Predict features."""
        return F.normalize(self.norm(self.head(tokens)).float(), dim=-1)


class Looked(NamedTuple):
    """What an image teacher makes of a clip; features are of unit length, float32."""

    layers: list[Tensor]
    """Each of its last layers, ``B 1+N D``, the class token first: that of all frames, on average."""
    pooled: Tensor
    """``B F``."""
    saliency: Tensor
    """How much it attends to each position, ``B t p``, positive; each frame's add up to less than one."""


@torch.no_grad()
def look(teacher: Teacher, video: Tensor, count: int) -> Looked:
    """What an image teacher makes of ``B T C H W`` video, in its last ``count`` layers."""
    encoder, frames = teacher.encoder, teacher.seen(video)
    b, t = frames.shape[:2]
    if isinstance(encoder, FrameEncoder):
        seen = encoder.steps(frames, count=count)
        pooled = rearrange(encoder.pool(seen[-1]), "(b t) f -> b t f", t=t).mean(dim=1)
        saliency = encoder.pool.weights(seen[-1])[:, 1:]
    else:
        _, every = encoder.steps(frames, layers=True)
        seen, last = every[-count:], encoder.blocks[-1]
        pooled = encoder.norm(rearrange(seen[-1][:, 0], "(b t) d -> b t d", t=t).mean(dim=1))
        saliency = last.attention.weights(last.norm1(every[-2]), 1).mean(dim=1)[:, 0, 1:]
    layers = []
    for tokens in seen:
        cls = rearrange(tokens[:, 0], "(b t) d -> b t d", t=t).mean(dim=1, keepdim=True)
        patches = rearrange(tokens[:, 1:], "(b t) p d -> b (t p) d", t=t)
        layers.append(F.normalize(torch.cat([cls, patches], dim=1).float(), dim=-1))
    return Looked(layers, F.normalize(pooled.float(), dim=-1), rearrange(saliency.float(), "(b t) p -> b t p", b=b))


def choose_by_weight(seeds: Tensor, weights: Tensor, count: int) -> Tensor:
    """``count`` positions of each frame, drawn without replacement in proportion to ``weights`` (``B t p``).

    Returns indices into the grid, ascending, ``B t*count``; drawn from each clip's seed (``B``) by perturbing the
    logarithms of weights with Gumbel noise.
    """
    b, t, p = weights.shape
    draws = uniform(seeds, t * p, "internvideo2.kept").view(b, t, p).clamp(min=2.0**-25)
    keys = weights.log() - (-draws.log()).log()
    kept = keys.topk(count, dim=-1).indices.sort(dim=-1).values
    return (kept + torch.arange(t, device=kept.device)[:, None] * p).flatten(1)


def misalignment(predicted: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """``2 - 2 cos`` of vectors of unit length, the mean over layers, clips and positions."""
    each = [2 - 2 * (x * y).sum(dim=-1).mean() for x, y in zip(predicted, targets, strict=True)]
    return torch.stack(each).mean()


class InternVideo2(Objective):
    """A student whose kept tokens are aligned with those of an image and a video teacher."""

    requires = ("video", "seed")
    starts_whole = True

    def __init__(self, config: InternVideo2Config) -> None:
        super().__init__()
        self.encoder = AlignedEncoder(config)
        self.config = config
        grid, width, depth = self.encoder.grid, config.width, config.depth
        sizes = {"num_frames": config.num_frames, "size": config.size, "normalise": "l2"}
        self.image_teacher = config.build_teacher("image_teacher", grid, **sizes, frames="first")
        self.video_teacher = config.build_teacher("video_teacher", grid, **sizes, frames="all")
        image = self.image_teacher.encoder
        if not isinstance(image, FrameEncoder | FrameTransformer):
            raise UserError(
                f"image_teacher: a {type(image).__name__} does not say what it attends to: give a FrameEncoder, or "
                "an image transformer with a class token"
            )
        # Of an image transformer the last block's input is needed too.
        layers = {
            "image_layers": min(depth, image.depth - isinstance(image, FrameTransformer)),
            "video_layers": min(depth, getattr(self.video_teacher.encoder, "depth", depth)),
        }
        for name, most in layers.items():
            if getattr(config, name) > most:
                raise UserError(f"{name} is {getattr(config, name)}, and student and teacher have {most} that align")
        pooled = self._pooled_width(image)
        self.image_heads = nn.ModuleList(Head(width, self.image_teacher.width) for _ in range(config.image_layers))
        self.video_heads = nn.ModuleList(
            Head(width, self.video_teacher.width, mlp=True) for _ in range(config.video_layers)
        )
        self.pooled_head = Head(config.pool_width, pooled)
        self.image_positions = nn.Parameter(start_positions(grid, width))
        self.video_positions = nn.Parameter(start_positions(grid, width)[1:].clone())
        for part in (self.image_heads, self.video_heads, self.pooled_head):
            init_linear(part, config.linear_init)

    @staticmethod
    def _pooled_width(image: nn.Module) -> int:
        return image.pool.out.out_features if isinstance(image, FrameEncoder) else image.width

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The weighted misalignment with the image teacher's layers, its pooled output, and the video teacher's."""
        video, config = batch["video"], self.config
        looked = look(self.image_teacher, video, config.image_layers)
        kept = self.kept(batch["seed"], looked.saliency)
        losses = self.losses(video, kept, looked)
        total = config.image_weight * losses["image"] + config.pooled_weight * losses["pooled"]
        total = total + config.video_weight * losses["video"]
        return Loss(total, {f"loss_{name}": loss.detach() for name, loss in losses.items()})

    def kept(self, seeds: Tensor, saliency: Tensor) -> Tensor:
        """The positions that the student sees, ``B K`` ascending, as many in each frame."""
        weights = saliency if self.config.keep == "salient" else torch.ones_like(saliency)
        places = saliency.shape[-1]
        return choose_by_weight(seeds, weights, places - int(places * self.config.mask_ratio))

    def losses(self, video: Tensor, kept: Tensor, looked: Looked) -> dict[str, Tensor]:
        """The three misalignments, of a student that sees the positions ``kept``."""
        config = self.config
        seen = self.encoder.layers(video, kept, count=max(config.image_layers, config.video_layers))
        image, pooled, motion = self.predict(seen, kept)
        with torch.no_grad():
            wanted = [torch.cat([layer[:, :1], take(layer[:, 1:], kept)], dim=1) for layer in looked.layers]
            moving = [take(layer, kept) for layer in self.video_teacher.last_layers(video, config.video_layers)]
        return {
            "image": misalignment(image, wanted),
            "pooled": misalignment([pooled], [looked.pooled]),
            "video": misalignment(motion, moving),
        }

    def predict(self, seen: list[Tensor], kept: Tensor) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """Features of the image teacher's layers (``B 1+K D`` each), its pooled output, and the video teacher's
        layers (``B K D`` each), from the student's last layers."""
        where = self.image_positions
        positions = torch.cat([where[:1].expand(kept.shape[0], 1, -1), F.embedding(kept, where[1:])], dim=1)
        layers = seen[-len(self.image_heads) :]
        image = [head(tokens + positions.to(tokens.dtype)) for head, tokens in zip(self.image_heads, layers)]
        positions, layers = F.embedding(kept, self.video_positions), seen[-len(self.video_heads) :]
        motion = [head(tokens[:, 1:] + positions.to(tokens.dtype)) for head, tokens in zip(self.video_heads, layers)]
        return image, self.pooled_head(self.encoder.pool(seen[-1])), motion

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: the student's, then the heads."""
        part, _, rest = name.partition(".")
        return self.encoder.depth_of(rest) if part == "encoder" else self.encoder.depth + 2


@dataclass(frozen=True, kw_only=True)
class FrameEncoderConfig(AlignedArchitecture, ObjectiveConfig):
    """An image teacher of InternVL's form."""

    num_frames: Count = 1
    patch_size: tuple[Count, Count, Count]
    """One frame, height and width of a patch."""

    def build(self) -> EncoderOnly:
        """Build the network with fresh weights."""
        return EncoderOnly(FrameEncoder(self))


@dataclass(frozen=True, kw_only=True)
class InternVideo2Config(AlignedArchitecture, TaughtConfig):
    """A student, its teachers, what is kept of a clip, and how many layers are aligned."""

    mask_ratio: ShareBelowOne = 0.8
    """Share of a frame's positions that the student does not see."""
    keep: Literal["salient", "random"] = "salient"
    """Positions that it sees: drawn in proportion to the image teacher's attention, or any."""
    image_teacher: ObjectiveConfig
    """Network that sees one frame of each pair alone; an ``image_teacher_run`` replaces it by its own."""
    image_teacher_run: str | None = None
    """Run folder, or model on the Hub or in its layout, of the image teacher, which stays there."""
    image_layers: Count = 6
    """Number of last layers that are aligned with the image teacher's."""
    video_teacher: ObjectiveConfig
    """Network that sees the clip; a ``video_teacher_run`` replaces it by its own."""
    video_teacher_run: str | None = None
    """Run folder, or model on the Hub or in its layout, of the video teacher, which stays there."""
    video_layers: Count = 4
    """Number of last layers that are aligned with the video teacher's."""
    image_weight: Weight = 1.0
    """Weight of the image teacher's layers."""
    pooled_weight: Weight = 1.0
    """Weight of the image teacher's pooled output."""
    video_weight: Weight = 1.0
    """Weight of the video teacher's layers."""

    def used_teachers(self) -> tuple[str, ...]:
        """Both."""
        return ("image_teacher", "video_teacher")

    def build(self) -> InternVideo2:
        """Build the networks with fresh weights.

        Raises:
            UserError: a teacher's grid is not the student's, it has too few layers, or says nothing of attention.
        """
        return InternVideo2(self)


_PUBLISHED = (
    (r"^encoder\.embed\.", "patch_embed."),
    (r"^encoder\.pool\.norm_", "clip_projector.norm1_"),
    (r"^encoder\.pool\.out\.", "clip_projector.cross_attn.proj."),
    (r"^encoder\.pool\.(\w)\.bias$", r"clip_projector.cross_attn.\1_bias"),
    (r"^encoder\.pool\.", "clip_projector.cross_attn."),
    (r"^encoder\.", ""),
    (r"^image_heads\.", "clip_decoder."),
    (r"^video_heads\.", "mae_decoder."),
    (r"^pooled_head\.", "final_clip_decoder."),
    (r"^image_positions$", "clip_pos_embed"),
    (r"^video_positions$", "mae_pos_embed"),
    (r"\.attention\.out\.", ".attn.proj."),
    (r"\.attention\.", ".attn."),
    (r"\.scale(\d)$", r".ls\1.gamma"),
)


def _as_linear(name: str, tensor: Tensor) -> Tensor:
    """Patches are projected by a convolution there."""
    return conv_to_linear(tensor) if name.endswith("embed.proj.weight") else tensor


def _as_convolution(patch_size: tuple[int, int, int], name: str, tensor: Tensor) -> Tensor:
    if name.endswith("embed.proj.weight"):
        return linear_to_conv(tensor, patch_size)
    if name.endswith(("_token", "pos_embed", "_positions")):
        return tensor.view(1, -1, tensor.shape[-1])
    return tensor


def tiny() -> Run:
    """Motions at 64 x 64 pixels, and teachers of random weights: a run for use names trained ones."""
    sizes = {"num_heads": 3, "size": 64}
    own = {"pool_width": 32, "pool_num_heads": 2, "linear_init": "glorot", "layer_scale": 0.1}
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=InternVideo2Config(
            **sizes,
            **own,
            width=96,
            depth=4,
            num_frames=8,
            patch_size=(2, 8, 8),
            image_teacher=FrameEncoderConfig(**sizes, **own, width=48, depth=2, patch_size=(1, 8, 8)),
            image_layers=2,
            video_teacher=VideoTransformerConfig(**sizes, width=72, depth=2, num_frames=8, patch_size=(2, 8, 8)),
            video_layers=2,
            untrained_teachers=True,
        ),
        optim=AdamW(lr=2e-3, betas=(0.9, 0.98)),
        train=Loop(length=Steps(100)),
    )


_SIX_B = {"width": 3200, "depth": 48, "num_heads": 25, "mlp_ratio": 4.0}
_INTERNVL = FrameEncoderConfig(**_SIX_B, size=224, patch_size=(1, 14, 14), layer_scale=0.1)


def _pretrain(network: InternVideo2Config, *, batch_size: int) -> Run:
    """300 epochs on clips of 16 frames over the whole video."""
    return Run(
        data=Data(
            clip=Clip(num_frames=16, sampling="segments", crop="random_resized", area=(0.4, 1.0)),
            augment=Augment(mirror=0.5),
            batch_size=batch_size,
            num_workers=12,
        ),
        objective=network,
        optim=AdamW(
            lr=1.5e-4 * batch_size / 256,
            betas=(0.9, 0.98),
            weight_decay=0.05,
            schedule=Cosine(warmup=40 / 300, final=1e-5 / 1.5e-4),
        ),
        train=Loop(length=Epochs(300), precision="bfloat16", clip_grad=3.0),
    )


def one_b() -> Run:
    """The student of 1B weights, from InternVL's image encoder of 6B and VideoMAE V2's ViT-g, on 1.1M clips."""
    network = InternVideo2Config(
        width=1408,
        depth=40,
        num_heads=16,
        mlp_ratio=48 / 11,
        num_frames=16,
        size=224,
        patch_size=(2, 14, 14),
        drop_path=0.25,
        image_teacher=_INTERNVL,
        video_teacher=find("pretraining.videomae:v2_giant_hybrid").objective,
    )
    return _pretrain(network, batch_size=4096)


def six_b() -> Run:
    """The student of 6B weights, from the same teachers, on 2M clips."""
    run = one_b()
    return _pretrain(replace(run.objective, **_SIX_B, drop_path=0.3), batch_size=2048)

"""VIOLET, the visual half: masked patches of a few frames are named by the codes that a discrete VAE has for them.

Frames whose patches of 32 x 32 pixels are blackened go through a video Swin and, with a class token for each frame,
through a transformer that text joins in the whole method; a small network then says the code of every masked patch.
Codes are those of a frozen tokenizer of images that sees the frames whole and small, one code for a patch. Fu et al.,
"VIOLET: End-to-End Video-Language Transformers with Masked Visual-token Modeling", 2021. The Swin is
:mod:`filmstrip.models.video_swin`, the target :class:`filmstrip.objectives.targets.Codes`.

    filmstrip train pretraining.violet:small_webvid --data.path PATH --objective.tokenizer-run RUN

Blocks of patches are masked, or those that the transformer attends to most (``masking``: half of the clips each). The
authors' files start it (``--init FILE``), their text left out.

Where we deviate: attended masking looks at visual tokens alone, for there is no text; frames are cropped square where
the paper pads them; the transformer's attention weights have no dropout.

The paper's results are of models of video and text (video question answering, retrieval); of the visual half alone it
states none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor, nn

from filmstrip.bounds import Count, PositiveShare, ShareBelowOne
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.models.video_swin import VideoSwin, VideoSwinArchitecture
from filmstrip.nn.attention import Attention
from filmstrip.nn.block import run_blocks
from filmstrip.nn.initialisation import STD, init_linear
from filmstrip.nn.mlp import MLP
from filmstrip.nn.normalise import IMAGENET_MEAN
from filmstrip.objectives.config import FrozenPart
from filmstrip.objectives.latent import LatentConfig
from filmstrip.objectives.targets import Codes
from filmstrip.protocols import Batch, Features, Grid, Layout, Loss, Objective, as_float
from filmstrip.randomness import uniform
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant
from filmstrip.weights.keymap import Weights
from filmstrip.weights.layers import fuse, unfuse

MaskedPatches = Literal["blocks", "attended", "both"]


class JointBlock(nn.Module):
    """A layer of BERT: attention, then a feed-forward network, each added and then normalised: ``B N D -> B N D``."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, num_heads)
        self.norm1 = nn.LayerNorm(width, eps=1e-12)
        self.mlp = MLP(width, 4 * width)
        self.norm2 = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        x = self.norm1(x + self.dropout(self.attention(x)))
        return self.norm2(x + self.dropout(self.mlp(x)))


class VioletEncoder(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder`: a video Swin, then a transformer with a class token for each frame.

    The Swin's tubelets overlap, each frame with the next, so that every frame has tokens of its own. ``summary`` are
    the frames' class tokens. Clips may be shorter and smaller than the network was built for.
    """

    def __init__(self, config: VioletConfig) -> None:
        super().__init__()
        self.swin = VideoSwin(config)
        self.width, self.depth = self.swin.width, self.swin.depth + config.joint_depth
        stride = 2 ** (len(config.depths) - 1)
        self.patch_size = (1, config.patch_size[1] * stride, config.patch_size[2] * stride)
        if config.size % self.patch_size[1] or config.size % self.patch_size[2] or config.patch_size[0] != 2:
            raise UserError(
                f"frames of {config.size} pixels and tubelets of {config.patch_size} make no grid: sizes have to be "
                f"multiples of {self.patch_size[1:]}, tubelets two frames long"
            )
        self.grid = Grid(config.num_frames, *(config.size // side for side in self.patch_size[1:]))
        width = self.width
        self.cls_token = nn.Parameter(STD * torch.randn(width))
        self.pos_embed = nn.Parameter(STD * torch.randn(1 + config.max_positions, width))
        self.time_pos_embed = nn.Parameter(STD * torch.randn(config.max_frames, width))
        if config.max_positions < self.grid.h * self.grid.w or config.max_frames < config.num_frames:
            raise UserError(
                f"{config.max_positions} positions and {config.max_frames} frames are too few for a grid of "
                f"{tuple(self.grid)}: raise max_positions or max_frames"
            )
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            JointBlock(width, config.joint_num_heads, config.joint_dropout) for _ in range(config.joint_depth)
        )
        init_linear(self.blocks, config.linear_init)

    def visual(self, video: Tensor, masked: Tensor | None = None) -> tuple[Tensor, Grid]:
        """What the transformer sees of ``B T C H W`` video, ``B T(1+hw) D``, each frame's class token first.

        Patches that are ``masked`` (``B T h w`` bool) are black.
        """
        video = as_float(video)
        if masked is not None:
            _, p, q = self.patch_size
            video = video * ~repeat(masked, "b t h w -> b t 1 (h p) (w q)", p=p, q=q)
        # Behind the last frame there is nothing, which is the mean colour.
        nothing = torch.tensor(IMAGENET_MEAN, device=video.device)[:, None, None].expand_as(video[:, :1])
        after = torch.cat([video[:, 1:], nothing], dim=1)
        said = self.swin(torch.stack([video, after], dim=2).flatten(1, 2))
        t, h, w = said.grid
        tokens = said.tokens.unflatten(1, (t, h * w))
        tokens = torch.cat([self.cls_token.expand(*tokens.shape[:2], 1, -1).to(tokens.dtype), tokens], dim=2)
        tokens = tokens + self.pos_embed[: 1 + h * w] + self.time_pos_embed[:t, None]
        return self.norm(tokens).flatten(1, 2), said.grid

    def forward(self, video: Tensor, layers: bool = False, masked: Tensor | None = None) -> Features:
        """Encode ``B T C H W`` video into tokens ``B N D``; ``layers`` are the transformer's."""
        x, grid = self.visual(video, masked)
        x, seen = run_blocks(self.blocks, x, layers)
        frames = x.unflatten(1, (grid.t, -1))
        patches = tuple(y.unflatten(1, (grid.t, -1))[:, :, 1:].flatten(1, 2) for y in seen)
        return Features(frames[:, :, 1:].flatten(1, 2), grid, patches, frames[:, :, 0])

    @torch.no_grad()
    def attended(self, video: Tensor) -> Tensor:
        """How much each patch is attended to, ``B N``: over layers and asking tokens, the mean over heads."""
        x, grid = self.visual(video)
        total = torch.zeros(x.shape[:2], device=x.device)
        for block in self.blocks:
            total = total + block.attention.weights(x, x.shape[1]).float().mean(dim=1).sum(dim=1)
            x = block(x)
        return total.unflatten(1, (grid.t, -1))[:, :, 1:].flatten(1)

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: the Swin's, then the transformer's."""
        part, _, rest = name.partition(".")
        if part == "swin":
            return self.swin.depth_of(rest)
        return self.swin.depth + 1 + (int(rest.partition(".")[0]) if part == "blocks" else 0)

    def layouts(self) -> tuple[Layout, ...]:
        """That of the authors' pretraining, of which the text is left out."""
        (swin,) = self.swin.layouts()
        return (
            Layout(
                name="VIOLET",
                rules=_PUBLISHED,
                after=(r"fc_mvm\..*",),
                spare=(*swin.spare, r"enc_txt\..*", r"fc\..*", r"fc_mtm\..*"),
                absent=(r"target\..*",),
                to_ours=swin.to_ours,
                to_theirs=swin.to_theirs,
                unpack=_unpacked,
                pack=_packed,
            ),
        )


_PUBLISHED = (
    (r"^encoder\.swin\.embed_norm\.", "enc_img.swin.patch_embed.norm."),
    (r"^encoder\.swin\.embed\.", "enc_img.swin.patch_embed."),
    (r"^encoder\.swin\.stages\.(\d+)\.(.*)\.attention\.relative\.bias$", r"enc_img.swin.layers.\1.\2.attn.@"),
    (r"^encoder\.swin\.stages\.(\d+)\.(.*)\.attention\.out\.", r"enc_img.swin.layers.\1.\2.attn.proj."),
    (r"^encoder\.swin\.stages\.(\d+)\.(.*)\.attention\.", r"enc_img.swin.layers.\1.\2.attn."),
    (r"^encoder\.swin\.stages\.", "enc_img.swin.layers."),
    (r"\.attn\.@$", ".attn.relative_position_bias_table"),
    (r"^encoder\.swin\.merges\.(\d+)\.reduce\.", r"enc_img.swin.layers.\1.downsample.reduction."),
    (r"^encoder\.swin\.merges\.(\d+)\.norm\.", r"enc_img.swin.layers.\1.downsample.norm."),
    (r"^encoder\.swin\.", "enc_img.swin."),
    (r"^encoder\.cls_token$", "enc_img.emb_cls"),
    (r"^encoder\.pos_embed$", "enc_img.emb_pos"),
    (r"^encoder\.time_pos_embed$", "enc_img.emb_len"),
    (r"^encoder\.norm\.", "enc_img.norm."),
    (r"^encoder\.blocks\.(\d+)\.attention\.qkv\.", r"trsfr.layer.\1.attention.self.qkv."),
    (r"^encoder\.blocks\.(\d+)\.attention\.out\.", r"trsfr.layer.\1.attention.output.dense."),
    (r"^encoder\.blocks\.(\d+)\.norm1\.", r"trsfr.layer.\1.attention.output.LayerNorm."),
    (r"^encoder\.blocks\.(\d+)\.mlp\.fc1\.", r"trsfr.layer.\1.intermediate.dense."),
    (r"^encoder\.blocks\.(\d+)\.mlp\.fc2\.", r"trsfr.layer.\1.output.dense."),
    (r"^encoder\.blocks\.(\d+)\.norm2\.", r"trsfr.layer.\1.output.LayerNorm."),
    (r"^head\.", "fc_mvm."),
)
"""Ours to theirs."""


def _unpacked(file: Mapping[str, Any]) -> Mapping[str, Any]:
    """One matrix of queries, keys and values; tokens and positions without leading axes of one."""
    state = fuse(file)
    for name in ("enc_img.emb_cls", "enc_img.emb_pos", "enc_img.emb_len"):
        if name in state:
            state[name] = state[name].squeeze()
    return state


def _packed(state: Mapping[str, Tensor]) -> Weights:
    """The inverse."""
    swin = {name: value for name, value in state.items() if ".swin." in name}
    file = unfuse({name: value for name, value in state.items() if name not in swin}) | swin
    axes = {"enc_img.emb_cls": (1, 1, 1, -1), "enc_img.emb_len": (1, -1, 1, file["enc_img.norm.bias"].shape[0])}
    axes["enc_img.emb_pos"] = (1, 1, -1, file["enc_img.norm.bias"].shape[0])
    return file | {name: file[name].reshape(shape) for name, shape in axes.items()}


def choose_blocks(seeds: Tensor, grid: Grid) -> Tensor:
    """Patches that are masked in blocks, ``B t h w`` bool: as many blocks as frames, each of a size and at a place
    that are drawn from the clip's seed (``B``); below the clip's length, and below two thirds of height and width."""
    draws = uniform(seeds, grid.t * 6, "violet.blocks").view(-1, grid.t, 3, 2, 1)
    chosen = torch.ones(seeds.shape[0], grid.t, 1, 1, 1, dtype=torch.bool, device=seeds.device)
    for axis, count in enumerate(grid):
        most = max(1, count - 1 if axis == 0 else 2 * count // 3 - 1)
        size = 1 + (draws[:, :, axis, 0] * most).long()
        start = (draws[:, :, axis, 1] * (count - size + 1)).long()
        place = torch.arange(count, device=seeds.device)
        within = (place >= start) & (place < start + size)
        shape = [1, 1, 1]
        shape[axis] = count
        chosen = chosen & within.view(*within.shape[:2], *shape)
    return chosen.any(dim=1)


def choose_attended(seeds: Tensor, weights: Tensor, count: int) -> Tensor:
    """``count`` positions of each clip that are masked, ``B N`` bool, drawn without replacement in proportion to
    ``weights`` (``B N``, positive) from the clip's seed (``B``)."""
    draws = uniform(seeds, weights.shape[1], "violet.attended").clamp(min=2.0**-25)
    keys = weights.log() - (-draws.log()).log()
    return torch.zeros_like(keys, dtype=torch.bool).scatter(1, keys.topk(count, dim=1).indices, True)


class Violet(Objective):
    """Masked visual-token modelling of video alone."""

    requires = ("video", "seed")
    starts_rest = True

    def __init__(self, config: VioletConfig) -> None:
        super().__init__()
        self.encoder = VioletEncoder(config)
        self.target = Codes(config.build_tokenizer(), self.encoder.grid)
        width = self.encoder.width
        self.head = nn.Sequential(
            nn.Dropout(config.joint_dropout),
            nn.Linear(width, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, self.target.codebook_size),
        )
        init_linear(self.head, config.linear_init)
        self.masking: MaskedPatches = config.masking
        t, h, w = self.encoder.grid
        self.count = max(1, int(t * (1 + h * w) * config.attended_ratio))

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The cross-entropy of codes at masked patches; also logs how often the likeliest code is the right one."""
        video = batch["video"]
        masked = self.masks(video, batch["seed"])
        codes = self.target(video)
        logits = self.predict(video, masked)
        flat = masked.flatten(1)
        nats = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view_as(codes)
        count = flat.sum()
        right = (logits.detach().argmax(dim=-1) == codes) & flat
        metrics = {"top1": right.sum() / count, "masked": count / flat.numel()}
        return Loss(torch.where(flat, nats, 0.0).sum() / count, metrics)

    def masks(self, video: Tensor, seeds: Tensor) -> Tensor:
        """The masked patches of each clip, ``B t h w`` bool, by its seed (``B``)."""
        grid = self.encoder.grid
        if self.masking == "blocks":
            return choose_blocks(seeds, grid)
        attended = choose_attended(seeds, self.encoder.attended(video), self.count).view(-1, *grid)
        if self.masking == "attended":
            return attended
        coin = uniform(seeds, 1, "violet.masking")[:, :, None, None] < 0.5
        return torch.where(coin, choose_blocks(seeds, grid), attended)

    def predict(self, video: Tensor, masked: Tensor) -> Tensor:
        """Logits of codes, ``B N K`` float32, of ``B T C H W`` video with ``masked`` patches (``B t h w`` bool)."""
        return self.head(self.encoder(video, masked=masked).tokens).float()

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: the encoder's, then the head."""
        part, _, rest = name.partition(".")
        return self.encoder.depth_of(rest) if part == "encoder" else self.encoder.depth + 1


@dataclass(frozen=True, kw_only=True)
class VioletConfig(VideoSwinArchitecture, LatentConfig):
    """A video Swin, a transformer over its tokens, the tokenizer whose codes are predicted, and the masking."""

    joint_depth: Count
    """Layers of the transformer over the tokens of all frames."""
    joint_num_heads: Count
    """Attention heads of a layer of that transformer."""
    joint_dropout: ShareBelowOne = 0.0
    """Dropout rate in that transformer, and before the head."""
    max_positions: Count = 196
    """Patches of a frame that have an embedding."""
    max_frames: Count = 6
    """Frames that have an embedding."""
    masking: MaskedPatches = "both"
    """Masked patches: in ``blocks``, the most ``attended`` ones, or either by the toss of a coin for each clip."""
    attended_ratio: PositiveShare = 0.15
    """Share of all tokens, class tokens included, that attended masking masks."""

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """The tokenizer, where it is a trained one."""
        return {"target.tokenizer": FrozenPart("objective.tokenizer_run")}

    def build(self) -> Violet:
        """Build the networks with fresh weights.

        Raises:
            UserError: frames are no multiple of patches, or the tokenizer has no code for each of these.
        """
        return Violet(self)


def tiny() -> Run:
    """Motions at 64 x 64 pixels, and a tokenizer of random weights: a run for use names a trained one."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=4, stride=4, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=VioletConfig(
            tokenizer=find("tokenizers.dvae:tiny").objective,
            untrained_tokenizer=True,
            num_frames=4,
            size=64,
            width=24,
            depths=(1, 1, 1),
            num_heads=(2, 2, 4),
            window=(2, 4, 4),
            patch_size=(2, 4, 4),
            linear_init="glorot",
            joint_depth=2,
            joint_num_heads=4,
            max_positions=16,
            max_frames=4,
        ),
        optim=AdamW(lr=1e-3, betas=(0.9, 0.98)),
        train=Loop(length=Steps(100)),
    )


def small_webvid() -> Run:
    """Swin-S and BERT's twelve layers on WebVid-2.5M and pictures of CC3M, 4 frames of a video; DALL-E's codes."""
    swin = find("recognition.video_swin:small_k400").objective
    names = ("width", "depths", "num_heads", "window", "patch_size")
    return Run(
        data=Data(
            clip=Clip(num_frames=4, sampling="segments", size=224, short_side=(224, 224)),
            augment=Augment(mirror=0.0),
            batch_size=48,
            num_workers=16,
        ),
        objective=VioletConfig(
            **{name: getattr(swin, name) for name in names},
            drop_path=0.2,
            tokenizer=find("tokenizers.dvae:dalle").objective,
            num_frames=4,
            size=224,
            joint_depth=12,
            joint_num_heads=12,
            joint_dropout=0.1,
        ),
        optim=AdamW(lr=2e-5, betas=(0.9, 0.98), weight_decay=1e-3, schedule=Constant()),
        train=Loop(length=Epochs(5), precision="bfloat16", clip_grad=None),
    )

"""InternVideo: two frozen video encoders, one trained by masking and one armed from CLIP, that ask each other.

The first (a VideoMAE) knows motion, the second (a UniFormerV2) meaning. Cross-model attention joins them: after some
blocks of the first its tokens attend to the second one's, and before the head the second one's clip token attends to
all tokens of the first. Only these modules and the head are trained, through frozen blocks. Wang et al.,
"InternVideo: General Video Foundation Models via Generative and Discriminative Learning", 2022. The masked encoder
is :mod:`filmstrip.models.vit`.

    filmstrip train pretraining.videomae:internvideo_huge_hybrid --data.path PATH --out runs/masked
    filmstrip train recognition.uniformer_v2:l14_8_k400 --data.path PATH --out runs/language
    filmstrip train recognition.internvideo:huge_k400 --data.path PATH \
        --objective.masked-run runs/masked --objective.language-run runs/language

Three stages: masked pretraining, the second encoder (here its supervised stage; whatever trains a UniFormerV2 with
captions is another run for ``language_run``), coordination. ``final = "concatenation"`` and ``after_blocks = ()`` are
the paper's ablations: late concatenation without any cross-model attention.

What is ours: of the coordination no code is public, and the text leaves open where it is, how it begins and how it is
trained. It begins as the identity (gains of zero), after every third block of the upper half, and is trained for five
epochs with AdamW. Channels are aligned by the linear maps of keys and values, not by convolutions before them. The
language encoder sees every second frame of the masked encoder's, so that both see the same moments.

The paper reports (top-1): Kinetics-400, 600 and 700 91.1, 91.3 and 84.0, Something-Something V1 and V2 70.0 and 77.2,
ActivityNet 94.3, HACS 95.5, HMDB51 89.3; without cross-model attention both recognition and retrieval are worse, and
the final query matters most (no figures). ``filmstrip claims internvideo_cma`` compares the ways of joining them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn

from filmstrip.bounds import Count, Rate
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.vit import ViT
from filmstrip.nn.attention import Attention
from filmstrip.nn.initialisation import init_glorot
from filmstrip.nn.mlp import MLP
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.objectives.config import FrozenNetworksConfig, ObjectiveConfig
from filmstrip.objectives.targets import try_out
from filmstrip.protocols import EncoderModule, Features, find_encoder
from filmstrip.runs.config import Run
from filmstrip.settings import FREE
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine


class CrossModelAttention(nn.Module):
    """Attention of one model's tokens to another's, then a feed-forward network, each normalised and then added.

    The gains of both norms are zero at first, so that nothing changes.
    """

    def __init__(self, width: int, context_width: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.attention = Attention(width, num_heads, context_width=context_width)
        self.norm1 = nn.LayerNorm(width)
        self.mlp = MLP(width, round(width * mlp_ratio))
        self.norm2 = nn.LayerNorm(width)
        self.apply(init_glorot)
        for norm in (self.norm1, self.norm2):
            nn.init.zeros_(norm.weight)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """``B N D`` tokens that ask, ``B M C`` tokens that are asked: ``B N D``."""
        x = x + self.norm1(self.attention(x, context=context))
        return x + self.norm2(self.mlp(x))


class Concatenation(nn.Module):
    """Two models' vectors side by side, each normalised: late fusion without cross-model attention."""

    def __init__(self, width: int, context_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.norm_context = nn.LayerNorm(context_width)

    def forward(self, token: Tensor, context: Tensor) -> Tensor:
        """``B 1 D`` and the mean of ``B M C``: ``B 1 D+C``."""
        return torch.cat([self.norm(token), self.norm_context(context.mean(dim=1, keepdim=True))], dim=-1)


class CoordinatedEncoder(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder` out of two frozen ones.

    Its tokens are the masked encoder's after cross-model attention, its ``summary`` is the language encoder's vector
    of the clip after the final one. Gradients flow through the frozen blocks; both encoders stay in evaluation mode.
    """

    def __init__(self, config: InternVideoConfig) -> None:
        super().__init__()
        masked, language = (_encoder_of(name, getattr(config, name)) for name in ("masked", "language"))
        if not isinstance(masked, ViT):
            raise UserError(
                f"masked: cross-model attention lies between blocks of a ViT, not in {type(masked).__name__}"
            )
        if wrong := [i for i in config.after_blocks if i > masked.depth]:
            raise UserError(f"after_blocks names block {wrong[0]}, and the masked encoder has {masked.depth}")
        self.masked, self.language = masked.requires_grad_(False), language.requires_grad_(False)
        self.width, self.depth = masked.width, masked.depth
        self.patch_size, self.grid = masked.patch_size, masked.grid
        self.after_blocks = tuple(config.after_blocks)
        self.step = config.language_step
        clip = torch.empty(1, config.num_frames, 3, config.size, config.size, dtype=torch.uint8, device="meta")
        try_out(masked, clip, "the masked encoder")
        said = try_out(language, clip[:, :: self.step], "the language encoder")
        tokens, vector = said.tokens.shape[-1], said.pooled().shape[-1]
        shape = {"num_heads": config.cross_num_heads, "mlp_ratio": config.cross_mlp_ratio}
        self.between = nn.ModuleList(CrossModelAttention(self.width, tokens, **shape) for _ in self.after_blocks)
        query = config.final == "query"
        self.final = CrossModelAttention(vector, self.width, **shape) if query else Concatenation(vector, self.width)
        self.summary_width = vector if query else vector + self.width
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As any module, but the two encoders stay in evaluation."""
        super().train(mode)
        self.masked.eval()
        self.language.eval()
        return self

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video; ``layers`` are the masked encoder's, after cross-model attention.

        Raises:
            ValueError: the video has another size than the encoders were built for.
        """
        said = self.language(video[:, :: self.step])
        x, seen = self.masked.embedded(video), []
        between = dict(zip(self.after_blocks, self.between))
        for i, block in enumerate(self.masked.blocks, 1):
            x = block(x)
            if i in between:
                x = between[i](x, said.tokens)
            if layers:
                seen.append(x)
        tokens = self.masked.norm(x)
        return Features(tokens, self.grid, tuple(seen), self.final(said.pooled()[:, None], tokens))

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: that of the block after which it comes, or behind the last."""
        part, _, rest = name.partition(".")
        return self.after_blocks[int(rest.partition(".")[0])] if part == "between" else self.depth + 1


def _encoder_of(name: str, config: ObjectiveConfig) -> EncoderModule:
    encoder = find_encoder(config.build())
    if encoder is None:
        raise UserError(f"{name}: {type(config).__name__} has no encoder")
    return encoder


class InternVideo(Classification):
    """Classification of the coordinated vector of a clip."""

    def __init__(self, config: InternVideoConfig) -> None:
        encoder = CoordinatedEncoder(config)
        super().__init__(encoder, config, norm=True, width=encoder.summary_width)


@dataclass(frozen=True, kw_only=True)
class InternVideoConfig(ClassificationConfig, FrozenNetworksConfig):
    """Two frozen encoders, where they are joined, and a linear classifier."""

    masked: ObjectiveConfig
    """Network whose ViT, trained by masking, sees all frames; a ``masked_run`` replaces it by its own."""
    masked_run: str | None = None
    """Run folder, or model on the Hub or in its layout, of the masked encoder, which stays there."""
    language: ObjectiveConfig
    """Network of the encoder that knows meaning; a ``language_run`` replaces it by its own."""
    language_run: str | None = None
    """Run folder, or model on the Hub or in its layout, of the language encoder, which stays there."""
    untrained_encoders: bool = field(default=False, metadata=FREE)
    """Whether the encoders may be untrained where no run is named: to try things out."""
    num_frames: Count
    """Frames of a clip."""
    size: Count
    """Height and width of a clip, pixels."""
    language_step: Count = 1
    """Distance, in frames of the clip, between those that the language encoder sees."""
    after_blocks: tuple[Count, ...]
    """Blocks of the masked encoder, counted from 1, after which its tokens attend to the language encoder's."""
    final: Literal["query", "concatenation"] = "query"
    """Fusion before the head: the language encoder's vector attends to the masked encoder's tokens (``query``), or
    stands beside their mean (``concatenation``)."""
    cross_num_heads: Count
    """Attention heads between the encoders."""
    cross_mlp_ratio: Rate = 4.0
    """Width of a feed-forward network between the encoders, relative to that of its tokens."""

    def frozen_networks(self) -> tuple[str, ...]:
        """Both encoders."""
        return ("masked", "language")

    def part_of(self, name: str) -> str:
        """An encoder within the coordinated one."""
        return f"encoder.{name}"

    def for_clip(self, clip: Clip) -> Self:
        """This method for clips of another length and size, with those encoders that come from nowhere."""
        own = cast(Any, super().for_clip(clip))
        clips = {"masked": clip, "language": replace(clip, num_frames=-(-clip.num_frames // self.language_step))}
        told: Mapping[str, Any] = {
            name: getattr(self, name).for_clip(clips[name])
            for name in self.frozen_networks()
            if self.network_run(name) is None
        }
        return cast(Self, replace(own, **told))

    def build(self) -> InternVideo:
        """Build the network with fresh weights.

        Raises:
            UserError: an encoder does not fit the clips, or its blocks are not those that are named.
        """
        return InternVideo(self)


def tiny() -> Run:
    """Eight motions at 64 x 64 pixels, and encoders of random weights: a run for use names trained ones."""
    language = find("recognition.uniformer_v2:tiny").objective
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=InternVideoConfig(
            masked=find("pretraining.videomae:tiny").objective,
            language=replace(language, halve_time=False),
            untrained_encoders=True,
            num_frames=8,
            size=64,
            language_step=2,
            after_blocks=(3,),
            cross_num_heads=2,
            cross_mlp_ratio=2.0,
            num_classes=8,
        ),
        optim=AdamW(lr=2e-3),
        train=Loop(length=Steps(100)),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def _coordinate(masked: str, language: str, depth: int, *, clip: Clip, step: int, evals: MultiView) -> Run:
    """Five epochs of cross-model attention between two encoders that are named by their presets."""
    return Run(
        data=Data(
            clip=clip,
            augment=Augment(mirror=0.0 if clip.sampling == "segments" else 0.5),
            batch_size=128,
            num_workers=10,
        ),
        objective=InternVideoConfig(
            masked=find(f"pretraining.videomae:{masked}").objective,
            language=find(f"recognition.uniformer_v2:{language}").objective,
            num_frames=16,
            size=224,
            language_step=step,
            after_blocks=tuple(range(depth // 2 + 1, depth, 3)),
            cross_num_heads=16 if depth == 32 else 12,
            num_classes=400 if step == 2 else 174,
        ),
        optim=AdamW(lr=1e-4, weight_decay=0.05, schedule=Cosine(warmup=0.1)),
        train=Loop(length=Epochs(5), precision="bfloat16", clip_grad=1.0),
        evals=(evals,),
    )


_K400 = Clip(num_frames=16, stride=4, crop="random_resized", area=(0.5, 1.0))
_SSV2 = Clip(num_frames=16, sampling="segments", crop="random_resized", area=(0.5, 1.0))


def base_k400() -> Run:
    """ViT-B and UniFormerV2-B/16 on Kinetics-400, of which the latter sees 8 of 16 frames."""
    evals = MultiView(num_clips=4, num_crops=3)
    return _coordinate("internvideo_base_hybrid", "b16_8_k400", 12, clip=_K400, step=2, evals=evals)


def huge_k400() -> Run:
    """ViT-H and UniFormerV2-L/14 on Kinetics-400, of which the latter sees 8 of 16 frames."""
    evals = MultiView(num_clips=4, num_crops=3)
    return _coordinate("internvideo_huge_hybrid", "l14_8_k400", 32, clip=_K400, step=2, evals=evals)


def huge_ssv2() -> Run:
    """ViT-H and UniFormerV2-L/14 on Something-Something V2; both see 16 frames."""
    evals = MultiView(num_clips=1, num_crops=3)
    return _coordinate("internvideo_huge_hybrid", "l14_16_ssv2", 32, clip=_SSV2, step=1, evals=evals)

"""Qwen2-VL: frames enter at their own shape, in tokens in proportion, and text, images and video share one rotary
embedding along time, height and width.

A vision transformer with rotary positions of rows and columns reads pairs of frames, each pair by itself; squares of
2 x 2 tokens become one of the language model; there the channels of a head turn by positions along three axes
(M-RoPE): a visual's tokens by their place in it, text by one number that goes on after the largest one used. Wang et
al., "Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution", 2024.

    filmstrip train language.qwen2_vl:stage1_7b --data CAPTIONS.json --objective.decoder-run QWEN2 \\
        --data.reads.tokenizer QWEN2
    filmstrip train language.qwen2_vl:lora --data DIALOGUES.jsonl --init hf:Qwen/Qwen2-VL-2B-Instruct

The vision transformer and the merger are in ``models/native_vit.py``, the rule of sizes is in ``video/geometry.py``,
the positions are in ``nn/rotary.py``. One ladder of frequencies is cut into runs, time's the fastest, as in the
public code (the text has frequencies of each axis). Text goes on after the largest position of any axis, as in the
paper; transformers' code leaves out time, so that text after a long video has the positions of its last frames.

Clips of a batch have frames of their own shapes where ``data.clip.native`` says so, as in the paper's presets; where
a model is used it reads frames of any shape (``see``). Where we deviate: learning rates, which the paper does not
give, are those of Qwen-VL.

The paper reports, from rotary positions of one axis to three: Perception Test 46.6 and 47.4, NextQA 43.9 and 46.0,
STAR 55.5 and 57.9, MMBench 58.6 and 60.6; and for 7B: TextVQA 84.3, MVBench 67.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from filmstrip.bounds import Count
from filmstrip.data.config import Augment, Clip, Data, NativeSize, PixelRange
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.errors import UserError
from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.llama_layout import ADAPTABLE, config_in_hub, decoder_config, from_llama, to_llama
from filmstrip.models.native_vit import (
    NativeViT,
    NativeViTConfig,
    TileMerger,
    TileMergerConfig,
    from_tower,
    to_tower,
)
from filmstrip.models.video_language import Places, Seen, Visuals
from filmstrip.nn.patches import NativeFrames
from filmstrip.nn.rotary import rope_ids
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.language import Adaptation, Part, VideoLanguage, VideoLanguageConfig
from filmstrip.objectives.teachers import EncoderOnly
from filmstrip.protocols import Batch, Grid, as_float
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine
from filmstrip.video.geometry import native_size
from filmstrip.weights.hub import statistics_of
from filmstrip.weights.keymap import Weights, renamed


@dataclass(frozen=True, kw_only=True)
class VisionConfig(NativeViTConfig, ObjectiveConfig):
    """The vision transformer."""

    def build(self) -> EncoderOnly:
        """Build the network with fresh weights."""
        return EncoderOnly(NativeViT(self))


@dataclass(frozen=True, kw_only=True)
class Qwen2VLConfig(VideoLanguageConfig):
    """A vision transformer for frames of any size, a merger of its tokens, and a language model on three axes."""

    connector: TileMergerConfig = field(default_factory=TileMergerConfig)
    """Merger of squares of tokens."""
    image_pixels: tuple[Count, Count] = (56 * 56, 28 * 28 * 1280)
    """Minimum and maximum number of pixels at which an image enters."""
    video_pixels: tuple[Count, Count] = (28 * 28 * 128, 28 * 28 * 768)
    """Minimum and maximum number of pixels at which a frame of a video enters."""
    video_tokens: Count = 115_200
    """Maximum number of tokens of a video, unless its frames are at their minimum."""

    hub_types: ClassVar[tuple[str, ...]] = ("qwen2_vl",)

    def as_published(self, config: Mapping[str, Any], preprocessing: Mapping[str, Any], source: str) -> Self:
        """With the sizes of a ``Qwen2VLForConditionalGeneration``.

        Raises:
            UserError: it has a part that this model does not have.
        """
        vision, text = config["vision_config"], config.get("text_config") or config
        rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
        if "mrope_section" not in rope or vision.get("hidden_act", "quick_gelu") != "quick_gelu":
            raise UserError(f"{source} has no positions on three axes, or another vision network than Qwen2-VL's")
        theta = rope.get("rope_theta") or text.get("rope_theta", 1e6)
        plain = {"rope_type": "default", "rope_theta": theta}
        tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))
        told = {"rms_norm_eps": 1e-5, **text, "model_type": "qwen2", "rope_parameters": plain, "rope_scaling": None}
        decoder = decoder_config({**told, "tie_word_embeddings": tied}, source)
        width, patch = vision["embed_dim"], vision.get("patch_size", 14)
        encoder = VisionConfig(
            width=width,
            depth=vision["depth"],
            num_heads=vision["num_heads"],
            mlp_dim=int(width * vision.get("mlp_ratio", 4)),
            patch_size=(vision.get("temporal_patch_size", 2), patch, patch),
            **(statistics_of(preprocessing) if "image_mean" in preprocessing else {}),
        )
        size = preprocessing.get("size") or {}
        least = preprocessing.get("min_pixels") or size.get("shortest_edge") or self.image_pixels[0]
        most = preprocessing.get("max_pixels") or size.get("longest_edge") or self.image_pixels[1]
        return replace(
            self,
            encoder=encoder,
            connector=TileMergerConfig(side=vision.get("spatial_merge_size", 2)),
            decoder=replace(decoder, rope_sections=tuple(rope["mrope_section"])),
            image_pixels=(least, most),
            video_pixels=tuple(min(pixels, most) for pixels in self.video_pixels),
        )

    def frame_sizes(self, native: NativeSize) -> NativeSize:
        """Those of this network's patches and ranges of pixels."""
        return native.of_network(
            patch=self.encoder.patch_size[1],
            merged=self.connector.side,
            image_pixels=self.image_pixels,
            video_pixels=self.video_pixels,
        )

    def build(self) -> Qwen2VL:
        """Build the model with fresh weights.

        Raises:
            UserError: the encoder is another one, the language model is both trained and adapted, or nothing is
                trained.
        """
        return Qwen2VL(self)


class Qwen2VL(VideoLanguage):
    """A language model that reads frames of any size; what it sees (``see``) are tokens on a grid, ``B T H W D``."""

    takes_native = True
    encoder: NativeViT
    connector: TileMerger

    def __init__(self, config: Qwen2VLConfig) -> None:
        super().__init__(config)
        self.image_pixels, self.video_pixels = config.image_pixels, config.video_pixels
        self.video_tokens = config.video_tokens

    def entered(self, clip: Clip) -> tuple[int, int]:
        """Height and width at which frames of a clip enter."""
        return self.size_of(clip.num_frames, clip.size, clip.size)

    def grid_of(self, frames: int, height: int, width: int) -> Grid:
        """The grid of the encoder's tokens of a clip, at the size at which it enters."""
        return super().grid_of(frames, *self.size_of(frames, height, width))

    def from_transformers(self, theirs: Mapping[str, Tensor]) -> Weights:
        """The weights from those of a ``Qwen2VLForConditionalGeneration``.

        Raises:
            UserError: a weight has no place here.
        """
        return from_qwen2_vl(theirs, self)

    def to_transformers(self) -> tuple[dict[str, Any], Weights]:
        """A ``Qwen2VLForConditionalGeneration``.

        Raises:
            UserError: its positions are on one axis, or the place of a visual is outside its vocabulary.
        """
        vision, decoder = self.encoder.config, self.decoder.config
        if decoder.rope_sections is None or not decoder.qkv_bias:
            raise UserError("transformers' Qwen2-VL has positions on three axes, and biases in its attention")
        text = config_in_hub(replace(decoder, rope_sections=None)) | {"model_type": "qwen2_vl_text"}
        text["rope_parameters"] |= {"mrope_section": list(decoder.rope_sections)}
        config = {
            "model_type": "qwen2_vl",
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "text_config": {key: value for key, value in text.items() if key not in ("architectures", "head_dim")},
            "vision_config": {
                "model_type": "qwen2_vl_vision",
                "depth": vision.depth,
                "embed_dim": vision.width,
                "hidden_size": decoder.width,
                "num_heads": vision.num_heads,
                "mlp_ratio": vision.mlp_dim / vision.width,
                "patch_size": vision.patch_size[1],
                "temporal_patch_size": vision.patch_size[0],
                "spatial_merge_size": self.connector.side,
            },
            "image_token_id": self.place("<image>"),
            "video_token_id": self.place("<video>"),
            "tie_word_embeddings": decoder.tied,
        }
        return config, to_qwen2_vl(self)

    def in_transformers(self, video: Tensor, text: Tensor) -> dict[str, Tensor]:
        """Rows of normalised pixels, their grids, and ids; the sizes of frames must be those at which they enter."""
        tubelet, patch, _ = self.encoder.patch_size
        if short := -video.shape[1] % tubelet:
            video = torch.cat([video, video[:, -1:].expand(-1, short, -1, -1, -1)], dim=1)
        grid = super().grid_of(video.shape[1], *video.shape[3:])
        rows = rearrange(
            self.encoder.embed.normalise(video),
            "b (t f) c (h m p) (w n q) -> (b t h w m n) (c f p q)",
            f=tubelet,
            m=self.connector.side,
            n=self.connector.side,
            p=patch,
            q=patch,
        )
        ids = self.spread(text, self.connector.num_tokens(grid))
        return {
            "pixel_values_videos": rows,
            "video_grid_thw": torch.tensor([tuple(grid)] * len(video)),
            "input_ids": ids,
            "mm_token_type_ids": (ids == -1).int() * 2,
        }

    def size_of(self, frames: int, height: int, width: int) -> tuple[int, int]:
        """Height and width at which frames of an image or a video enter.

        Raises:
            UserError: they are too long.
        """
        tubelet, patch, _ = self.encoder.patch_size
        multiple = patch * self.connector.side
        least, most = self.image_pixels if frames == 1 else self.video_pixels
        if frames > 1:
            share = self.video_tokens * multiple**2 * tubelet // frames
            most = max(min(most, share), int(1.05 * least))
        return native_size(height, width, multiple=multiple, min_pixels=least, max_pixels=most)

    def see(self, video: Tensor) -> Tensor:
        """Tokens ``B T H W D`` of ``B T C H W`` video of any size; zeros for a model that is blind."""
        size = self.size_of(video.shape[1], *video.shape[3:])
        if size != tuple(video.shape[3:]):
            flat = as_float(video).flatten(0, 1)
            resized = F.interpolate(flat, size=size, mode="bicubic", antialias=True, align_corners=False)
            video = resized.clamp(0, 1).unflatten(0, video.shape[:2])
        tokens, grid = self.encoded(video)
        seen = self.connector(tokens, grid).unflatten(1, tuple(self.connector.merged(grid)))
        return seen if self.sees else seen * 0

    def watch(self, batch: Batch) -> Seen:
        """See :class:`~filmstrip.objectives.language.VideoLanguage`; of clips whose frames differ in size, the tokens
        of each with their own grid."""
        frames = NativeFrames.of(batch)
        return super().watch(batch) if frames is None else self.see_native(batch["video"], frames)

    def see_native(self, video: Tensor, frames: NativeFrames) -> Visuals:
        """Tokens of ``B T C H W`` video whose clips have frames of their own sizes, which stay as they are."""
        sides = frames.grids(self.encoder.patch_size)
        with torch.set_grad_enabled(torch.is_grad_enabled() and "encoder" in self.trained):
            tokens = self.encoder.native(video, frames)
        merged = self.connector.native(tokens, sides)
        _, steps, room, _ = merged.shape
        grids = F.pad((sides // self.connector.side).clamp(min=1), (1, 0), value=steps)
        each = grids[:, 1:].prod(dim=1, keepdim=True)
        token = torch.arange(steps * room, device=video.device)
        index = (token // each).clamp(max=steps - 1) * room + token % each
        rows = merged.flatten(1, 2).gather(1, index[..., None].expand(-1, -1, merged.shape[3]))
        return Visuals(rows if self.sees else rows * 0, grids[:, None])

    def sequence(self, visual: Seen, text: Tensor, text_length: Tensor) -> tuple[Tensor, Places]:
        """See :class:`~filmstrip.models.video_language.VideoLanguageModel`; one ``visual`` is ``B T H W D``."""
        return super().sequence(visual.flatten(1, 3) if isinstance(visual, Tensor) else visual, text, text_length)

    def positions(self, visual: Seen, is_visual: Tensor) -> Tensor | None:
        """Positions on three axes, ``B N 3``; on one axis the order of the sequence."""
        if self.decoder.config.rope_sections is None:
            return None
        if isinstance(visual, Visuals):
            rows = [[Grid(*grid) for grid in row if grid[0]] for row in visual.grids.tolist()]
            return torch.cat([rope_ids(where[None], grids) for where, grids in zip(is_visual, rows)])
        return rope_ids(is_visual, [Grid(*visual.shape[1:4])])


_TEXT, _VISION = "model.language_model.", "model.visual."
_SPELLINGS = ((r"^visual\.", _VISION), (r"^model\.(?!visual\.|language_model\.)", _TEXT))
"""Names in files of ``transformers``, which differ from those of its models."""


def from_qwen2_vl(theirs: Mapping[str, Tensor], ours: Qwen2VL) -> Weights:
    """Our weights from those of a ``Qwen2VLForConditionalGeneration``.

    Raises:
        UserError: they have names that no such model has.
    """
    theirs = {renamed(name, _SPELLINGS): x for name, x in theirs.items()}
    visual = {name.removeprefix(_VISION): x for name, x in theirs.items() if name.startswith(_VISION)}
    text = {name.replace(_TEXT, "model."): x for name, x in theirs.items() if not name.startswith(_VISION)}
    tower, merger = from_tower(visual)
    statistics = {name: x for name, x in ours.encoder.state_dict().items() if ".normalise." in name}
    return {
        **{f"encoder.{name}": x for name, x in (tower | statistics).items()},
        **{f"connector.{name}": x for name, x in merger.items()},
        **{f"decoder.{name}": x for name, x in from_llama(text, ours.decoder.config).items()},
    }


def to_qwen2_vl(ours: Qwen2VL) -> Weights:
    """The inverse of :func:`from_qwen2_vl`."""
    tower = to_tower(ours.encoder.state_dict(), ours.connector.state_dict(), ours.encoder.patch_size)
    text = to_llama(ours.decoder.state_dict(), ours.decoder.config)
    return {
        **{f"{_VISION}{name}": x for name, x in tower.items()},
        **{name.replace("model.", _TEXT, 1) if name.startswith("model.") else name: x for name, x in text.items()},
    }


VISION = VisionConfig(width=1280, depth=32, num_heads=16, mlp_dim=5120, patch_size=(2, 14, 14))
_QWEN2 = {"rope_base": 1e6, "rope_sections": (16, 24, 24), "qkv_bias": True, "norm_eps": 1e-6}
QWEN2_1B5 = DecoderConfig(
    vocab_size=151_936, width=1536, depth=28, num_heads=12, num_kv_heads=2, mlp_dim=8960, tied=True, **_QWEN2
)
QWEN2_7B = DecoderConfig(
    vocab_size=152_064, width=3584, depth=28, num_heads=28, num_kv_heads=4, mlp_dim=18_944, **_QWEN2
)
QWEN2_72B = DecoderConfig(
    vocab_size=152_064, width=8192, depth=80, num_heads=64, num_kv_heads=8, mlp_dim=29_568, **_QWEN2
)


def tiny() -> Run:
    """Questions about moving shapes, all parts from scratch; trains in seconds on two CPU cores."""
    size, frames = 32, 4
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=200, num_test=40, num_frames=8, size=size),
            clip=Clip(num_frames=frames, sampling="uniform", size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            reads=Conversations(max_length=64),
            batch_size=16,
        ),
        objective=Qwen2VLConfig(
            encoder=VisionConfig(width=64, depth=2, num_heads=4, mlp_dim=128, patch_size=(2, 8, 8)),
            decoder=DecoderConfig(
                vocab_size=128, width=64, depth=2, num_heads=4, mlp_dim=128, rope_sections=(2, 3, 3), qkv_bias=True
            ),
            image_pixels=(16 * 16, 64 * 64),
            video_pixels=(16 * 16, 64 * 64),
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.05),
        train=Loop(length=Steps(100)),
    )


def stage1_2b() -> Run:
    """The vision transformer and the merger, with Qwen2-1.5B frozen: 2.2B parameters."""
    return _stage(QWEN2_1B5, 1)


def stage1_7b() -> Run:
    """The same with Qwen2-7B: 8.3B parameters."""
    return _stage(QWEN2_7B, 1)


def stage1_72b() -> Run:
    """The same with Qwen2-72B: 73.4B parameters."""
    return _stage(QWEN2_72B, 1)


def stage2_7b() -> Run:
    """All parts, on conversations, captions and text."""
    return _stage(QWEN2_7B, 2)


def stage3_7b() -> Run:
    """Instructions, with the vision transformer frozen."""
    return _stage(QWEN2_7B, 3)


def lora() -> Run:
    """A published model (``--init``, of any size) on one's own conversations: as ``lora_7b``, 8 of them a step."""
    run = lora_7b()
    return replace(
        run,
        data=replace(run.data, reads=replace(run.data.reads, max_length=4096), batch_size=8),
        optim=replace(run.optim, schedule=Cosine(warmup=0.03)),
        train=replace(run.train, length=Epochs(1)),
    )


def lora_7b() -> Run:
    """Instructions, with all layers of the language model adapted at rank 8 and all else frozen."""
    run = stage3_7b()
    assert isinstance(run.objective, Qwen2VLConfig)
    adaptation = Adaptation(rank=8, alpha=16.0, layers=ADAPTABLE)
    objective = replace(run.objective, trains=(), adaptation=adaptation)
    return replace(run, objective=objective, optim=replace(run.optim, lr=1e-4))


def _stage(decoder: DecoderConfig, stage: Literal[1, 2, 3]) -> Run:
    frames, side = 8, 336
    trains: tuple[Part, ...] = (
        ("encoder", "connector"),
        ("encoder", "connector", "decoder"),
        ("connector", "decoder"),
    )[stage - 1]
    steps, batch_size, lr, warmup = ((50_000, 30_720, 2e-4, 500), (19_000, 4096, 5e-5, 400), (8000, 128, 1e-5, 3000))[
        stage - 1
    ]
    return Run(
        data=Data(
            clip=Clip(num_frames=frames, sampling="uniform", size=side, short_side=(side, side), native=PixelRange()),
            augment=Augment(mirror=0.0),
            reads=Conversations(
                format="caption" if stage == 1 else "hub",
                max_length=16_384,
                around_visual=("<|vision_start|>", "<|vision_end|>"),
            ),
            batch_size=batch_size,
            num_workers=8,
        ),
        objective=Qwen2VLConfig(encoder=VISION, decoder=decoder, trains=trains),
        optim=AdamW(lr=lr, betas=(0.9, 0.98), weight_decay=0.05, schedule=Cosine(warmup=Steps(warmup))),
        train=Loop(length=Steps(steps), precision="bfloat16", checkpoint=True),
    )

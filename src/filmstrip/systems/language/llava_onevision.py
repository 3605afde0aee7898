"""LLaVA-OneVision: one model for images in high resolution, for several images, and for videos, with about as many
visual tokens for each, so that what is learnt of images helps with videos.

An image is seen as a whole and in up to 6 x 6 tiles (Higher AnyRes): the tiles' tokens are put together to one map,
without the padding, which is shrunk where it has more tokens than nine tiles, and a learned token ends each of its
rows. One of several images is seen as a whole alone. Of a video every frame is, and its 27 x 27 tokens are pooled to
14 x 14. Li et al., "LLaVA-OneVision: Easy Visual Task Transfer", 2024. Each stage starts from the one before:

    filmstrip train language.llava_onevision:stage1_7b --data CAPTIONS.json --objective.decoder-run QWEN2 \\
        --objective.encoder-run SIGLIP --data.reads.tokenizer QWEN2
    filmstrip train language.llava_onevision:stage2b_7b --data MIXED.json --init RUN ...
    filmstrip train language.llava_onevision:lora --data OWN.jsonl --init hf:llava-hf/llava-onevision-qwen2-7b-ov-hf

The budget is one of the whole map, and tokens are projected before they are pooled, as in the public code (the text
has a budget for every view, and pools first). Order alone tells of time: there is no embedding of it.

Where we deviate: images and frames are cut as squares of one size in training; images of any shape are read where a
model is used (``see``). One of several images is squeezed into the square, not padded to one. The stages' numbers of
samples are given in steps.

The paper reports of the 7B: DocVQA 87.5, VideoMME 58.2, and video chat 3.49 of 5; we measured none of these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.errors import UserError
from filmstrip.models.connectors import ConnectorConfig, TokenwiseMlp
from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.image_tower import ImageTower
from filmstrip.models.llama_layout import ADAPTABLE, config_in_hub, decoder_config, from_llama, to_llama
from filmstrip.models.siglip_layout import QKV, TOWER
from filmstrip.nn.patches import conv_to_linear, linear_to_conv
from filmstrip.objectives.language import Adaptation, Part, VideoLanguage, VideoLanguageConfig
from filmstrip.objectives.teachers import ImageTowerConfig
from filmstrip.protocols import Grid, as_float
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine
from filmstrip.weights.hub import statistics_of
from filmstrip.weights.keymap import KeyMap, Weights, renamed
from filmstrip.weights.layers import fuse, unfuse


@dataclass(frozen=True, kw_only=True)
class NewlineMlpConfig(ConnectorConfig):
    """Two linear layers with a GELU between them, and a token that ends a row."""

    def build(self, visual_width: int, width: int) -> NewlineMlp:
        """Build the connector with fresh weights."""
        return NewlineMlp(visual_width, width)


class NewlineMlp(TokenwiseMlp):
    """Two linear layers for every token, and the token that ends a row."""

    def __init__(self, visual_width: int, width: int) -> None:
        super().__init__(visual_width, width, depth=2)
        self.newline = nn.Parameter(torch.randn(width) / math.sqrt(width))


@dataclass(frozen=True, kw_only=True)
class LlavaOnevisionConfig(VideoLanguageConfig):
    """An image encoder, a connector with a token that ends rows, a language model, and how images are cut."""

    hub_types: ClassVar[tuple[str, ...]] = ("llava_onevision",)
    any_size: ClassVar[bool] = True

    encoder: ImageTowerConfig
    """Encoder of a tile; it reads the whole patches of it."""
    connector: NewlineMlpConfig = field(default_factory=NewlineMlpConfig)
    """Connector of visual tokens to the language model."""
    tile: Count = 384
    """Side of a tile, pixels: the size at which a whole image and a frame are seen, too."""
    most_rows: CountOrZero = 6
    """Maximum number of rows, and of columns, of tiles; with none images are seen as a whole alone."""
    most_tiles: Count = 9
    """Number of tiles whose tokens an image's map may have, up to a tenth more a side."""

    def for_clip(self, clip: Clip) -> Self:
        """Clips of any length and size are seen in tiles of one size."""
        return self

    def as_published(self, config: Mapping[str, Any], preprocessing: Mapping[str, Any], source: str) -> Self:
        """With the sizes of a ``LlavaOnevisionForConditionalGeneration``.

        Raises:
            UserError: it has a part that this model does not have.
        """
        vision = _TOWER | dict(config.get("vision_config") or {})
        ratio = str(config.get("vision_aspect_ratio", "anyres_max_9")).removeprefix("anyres_max_")
        own = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full", "projector_hidden_act": "gelu"}
        if other := [f"{k} {config[k]}" for k, v in own.items() if config.get(k, v) != v]:
            raise UserError(f"{source} has {', '.join(other)}, which is not known here")
        if vision["hidden_act"] != "gelu_pytorch_tanh" or not ratio.isdigit():
            raise UserError(f"{source} has another encoder than SigLIP's, or cuts images in another way")
        tile, width, patch = vision["image_size"], vision["hidden_size"], vision["patch_size"]
        grids = config.get("image_grid_pinpoints") or [[tile * most, tile] for most in range(1, 7)]
        encoder = replace(
            self.encoder,
            width=width,
            depth=vision["num_hidden_layers"],
            num_heads=vision["num_attention_heads"],
            mlp_ratio=vision["intermediate_size"] / width,
            norm_eps=vision["layer_norm_eps"],
            size=tile // patch * patch,
            patch_size=patch,
            **(statistics_of(preprocessing) if "image_mean" in preprocessing else {}),
        )
        return replace(
            self,
            encoder=encoder,
            layer=-1,
            decoder=decoder_config(config.get("text_config") or {"model_type": "qwen2"}, source),
            tile=tile,
            most_rows=max(side for grid in grids for side in grid) // tile,
            most_tiles=int(ratio),
        )

    def build(self) -> LlavaOnevision:
        """Build the model with fresh weights.

        Raises:
            UserError: the language model is both trained and adapted, or nothing is trained.
        """
        return LlavaOnevision(self)


_TOWER = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu_pytorch_tanh",
}
"""What a ``config.json`` may leave out of SigLIP's tower."""


def best_grid(height: int, width: int, tile: int, most: int) -> tuple[int, int]:
    """Rows and columns of tiles, at most so many each, that keep most of an image's pixels, then waste the least."""
    found, kept, wasted = (1, 1), 0, math.inf
    for rows in range(1, most + 1):
        for columns in range(1, most + 1):
            scale = min(columns * tile / width, rows * tile / height)
            own = min(int(width * scale) * int(height * scale), width * height)
            waste = rows * columns * tile**2 - own
            if own > kept or (own == kept and waste < wasted):
                found, kept, wasted = (rows, columns), own, waste
    return found


def unpadded(rows: int, columns: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a map of tokens that are padding on either side of an image of that height and width."""
    if width / height > columns / rows:
        return (rows - int(round(height * (columns / width), 7))) // 2, 0
    return 0, (columns - int(round(width * (rows / height), 7))) // 2


class LlavaOnevision(VideoLanguage):
    """A language model that sees an image as a whole and in tiles, and a video's frames, pooled."""

    config: LlavaOnevisionConfig
    encoder: ImageTower
    connector: NewlineMlp

    def __init__(self, config: LlavaOnevisionConfig) -> None:
        super().__init__(config)
        self.tile, self.most_rows, self.most_tiles = config.tile, config.most_rows, config.most_tiles
        self.side = self.encoder.grid.h

    def see(self, video: Tensor) -> Tensor:
        """Tokens ``B N D`` of ``B T C H W`` video, or of images (``T`` = 1), of any size; zeros for a blind model."""
        if video.shape[1] > 1:
            return self._seen(self._frames(video))
        return self._seen(self._image(video[:, 0]) if self.most_rows else self._whole(video[:, 0]))

    def see_among(self, video: Tensor) -> Tensor:
        """As :meth:`see`; one of several images is seen as a whole alone."""
        return self._seen(self._whole(video[:, 0])) if video.shape[1] == 1 else self.see(video)

    def _seen(self, tokens: Tensor) -> Tensor:
        return tokens if self.sees else tokens * 0

    def num_tokens(self, clip: Clip) -> int:
        """Number of tokens of the language model that a clip takes."""
        if clip.num_frames > 1:
            return clip.num_frames * math.ceil(self.side / 2) ** 2 + 1
        if not self.most_rows:
            return self.side**2 + 1
        rows, columns = self.map_of(clip.size, clip.size)
        return self.side**2 + rows * (columns + 1)

    def map_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the map of an image's tiles, as the language model sees it, without ends of rows."""
        rows, columns = (self.side * count for count in best_grid(height, width, self.tile, self.most_rows))
        top, left = unpadded(rows, columns, height, width)
        rows, columns = rows - 2 * top, columns - 2 * left
        over = math.sqrt(rows * columns / (self.most_tiles * self.side**2))
        return (int(rows // over), int(columns // over)) if over > 1.1 else (rows, columns)

    def project(self, frames: Tensor) -> Tensor:
        """Maps ``N D h w`` of the language model's tokens of ``N C tile tile`` frames."""
        height, width = (side * patch for side, patch in zip(self.encoder.grid[1:], self.encoder.patch_size[1:]))
        tokens, grid = self.encoded(frames[:, None, :, :height, :width])
        return rearrange(self.connector(tokens, grid), "n (h w) d -> n d h w", h=grid.h)

    def tiles(self, image: Tensor) -> Tensor:
        """Tiles ``B rows columns C tile tile`` of ``B C H W`` images, resized in their shape, padded with black."""
        height, width = image.shape[2:]
        rows, columns = best_grid(height, width, self.tile, self.most_rows)
        room = rows * self.tile, columns * self.tile
        if room[1] / width < room[0] / height:
            size = min(math.ceil(height * (room[1] / width)), room[0]), room[1]
        else:
            size = room[0], min(math.ceil(width * (room[0] / height)), room[1])
        top, left = ((whole - own) // 2 for whole, own in zip(room, size))
        padding = (left, room[1] - size[1] - left, top, room[0] - size[0] - top)
        padded = F.pad(_resized(image, size), padding)
        return rearrange(padded, "b c (r p) (s q) -> b r s c p q", p=self.tile, q=self.tile)

    def _image(self, image: Tensor) -> Tensor:
        """A whole image, then its tiles' map, with an end of each row."""
        height, width = image.shape[2:]
        tiles = self.tiles(image)
        batch, rows, columns = tiles.shape[:3]
        whole = _resized(image, (self.tile, self.tile))
        maps = self.project(torch.cat([whole, tiles.flatten(0, 2)]))
        whole, parts = maps[:batch], maps[batch:]
        stitched = rearrange(parts, "(b r s) d h w -> b d (r h) (s w)", r=rows, s=columns)
        top, left = unpadded(*stitched.shape[2:], height, width)
        stitched = stitched[:, :, top : stitched.shape[2] - top, left : stitched.shape[3] - left]
        if (size := self.map_of(height, width)) != tuple(stitched.shape[2:]):
            stitched = F.interpolate(stitched, size=size, mode="bilinear")
        ends = self.connector.newline.to(stitched.dtype)[:, None, None].expand(batch, -1, stitched.shape[2], 1)
        lines = torch.cat([stitched, ends], dim=3)
        return torch.cat([rearrange(x, "b d h w -> b (h w) d") for x in (whole, lines)], dim=1)

    def _whole(self, image: Tensor) -> Tensor:
        """A whole image, with an end."""
        seen = self.project(_resized(image, (self.tile, self.tile)))
        return self._ended(rearrange(seen, "b d h w -> b (h w) d"))

    def _frames(self, video: Tensor) -> Tensor:
        """The pooled frames of a video, with one end."""
        frames = _resized(video.flatten(0, 1), (self.tile, self.tile))
        pooled = F.interpolate(self.project(frames), size=(math.ceil(self.side / 2),) * 2, mode="bilinear")
        return self._ended(rearrange(pooled, "(b t) d h w -> b (t h w) d", b=len(video)))

    def _ended(self, tokens: Tensor) -> Tensor:
        end = repeat(self.connector.newline.to(tokens.dtype), "d -> b 1 d", b=len(tokens))
        return torch.cat([tokens, end], dim=1)

    def grid_of(self, frames: int, height: int, width: int) -> Grid:
        """The grid of the encoder's tokens of a clip's frames."""
        return Grid(frames, self.side, self.side)

    def from_transformers(self, theirs: Mapping[str, Tensor]) -> Weights:
        """The weights from those of a ``LlavaOnevisionForConditionalGeneration``.

        Raises:
            UserError: a weight has no place here.
        """
        return from_onevision(theirs, self)

    def to_transformers(self) -> tuple[dict[str, Any], Weights]:
        """A ``LlavaOnevisionForConditionalGeneration``.

        Raises:
            UserError: its language model is of no family there, or the place of a visual is outside its vocabulary.
        """
        tower = self.encoder.config
        config = {
            "model_type": "llava_onevision",
            "architectures": ["LlavaOnevisionForConditionalGeneration"],
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": tower.width,
                "intermediate_size": round(tower.width * tower.mlp_ratio),
                "num_hidden_layers": tower.depth,
                "num_attention_heads": tower.num_heads,
                "image_size": self.tile,
                "patch_size": tower.patch_size,
                "layer_norm_eps": tower.norm_eps,
                "vision_use_head": False,
            },
            "text_config": config_in_hub(self.decoder.config),
            "image_token_index": self.place("<image>"),
            "video_token_index": self.place("<video>"),
            "vision_aspect_ratio": f"anyres_max_{self.most_tiles}",
            "image_grid_pinpoints": [
                [self.tile * rows, self.tile * columns]
                for rows in range(1, self.most_rows + 1)
                for columns in range(1, self.most_rows + 1)
            ],
            "tie_word_embeddings": self.decoder.config.tied,
        }
        return config, to_onevision(self)

    def in_transformers(self, video: Tensor, text: Tensor) -> dict[str, Tensor]:
        """Normalised pixels of frames, or of images whole and in tiles, and ids."""
        normalise, tile = self.encoder.embed.normalise, (self.tile, self.tile)
        ids = self.spread(text, self.see(video[:1]).shape[1])
        if video.shape[1] > 1:
            frames = _resized(video.flatten(0, 1), tile).unflatten(0, video.shape[:2])
            return {"pixel_values_videos": normalise(frames), "input_ids": ids}
        image = video[:, 0]
        views = torch.cat([_resized(image, tile)[:, None], self.tiles(image).flatten(1, 2)], dim=1)
        sizes = torch.tensor([tuple(image.shape[2:])] * len(image))
        return {"pixel_values": normalise(views), "image_sizes": sizes, "input_ids": ids}


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """``N C H W`` images in another size; those that have it stay."""
    if tuple(images.shape[2:]) == size:
        return images
    resized = F.interpolate(as_float(images), size=size, mode="bicubic", antialias=True, align_corners=False)
    return resized.clamp(0, 1)


_VISION = KeyMap(
    (*TOWER, ("embeddings.position_embedding.weight", "pos_embed")),
    spare=(r"post_layernorm\..*", r"head\..*", r".*position_ids"),
)
_CONNECTOR = KeyMap(
    (
        ("linear_1.weight", "layers.0.weight"),
        ("linear_1.bias", "layers.0.bias"),
        ("linear_2.weight", "layers.2.weight"),
        ("linear_2.bias", "layers.2.bias"),
    )
)
_SPELLINGS = (
    (r"^model\.(?=vision_tower|multi_modal_projector|language_model|image_newline)", ""),
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^language_model\.(?:model\.)?", "model."),
    (r"^vision_tower\.vision_model\.", "vision_tower."),
)
"""Names of ``transformers``' models and files, older ones included."""


def from_onevision(theirs: Mapping[str, Tensor], ours: LlavaOnevision) -> Weights:
    """Our weights from those of a ``LlavaOnevisionForConditionalGeneration``; ``ours`` has their sizes.

    Raises:
        UserError: they have names that no such model has.
    """
    theirs = {renamed(name, _SPELLINGS): tensor for name, tensor in theirs.items()}
    rooms = ("vision_tower.", "multi_modal_projector.", "image_newline")
    tower, connector, newline = (
        {name.removeprefix(room): x for name, x in theirs.items() if name.startswith(room)} for room in rooms
    )
    words = {name: x for name, x in theirs.items() if not name.startswith(rooms)}
    seen = _VISION.ours(fuse(tower, QKV))
    if (patches := seen.get("embed.proj.weight")) is not None:
        seen["embed.proj.weight"] = conv_to_linear(patches[:, :, None])
    statistics = {name: x for name, x in ours.encoder.state_dict().items() if ".normalise." in f".{name}"}
    return {
        **{f"encoder.{name}": x for name, x in (seen | statistics).items()},
        **{f"connector.{_layer(name)}": x for name, x in connector.items()},
        **{f"connector.newline{rest}": x for rest, x in newline.items()},
        **{f"decoder.{name}": x for name, x in from_llama(words, ours.decoder.config).items()},
    }


def _layer(name: str) -> str:
    return dict(_CONNECTOR.pairs).get(name, name)


def to_onevision(ours: LlavaOnevision) -> Weights:
    """The inverse of :func:`from_onevision`, by the names in files; a norm that nothing reads is one of ones."""
    state = {name: x for name, x in ours.encoder.state_dict().items() if "normalise." not in name}
    state["embed.proj.weight"] = linear_to_conv(state["embed.proj.weight"], ours.encoder.patch_size)[:, :, 0]
    tower = unfuse(_VISION.theirs(state), QKV)
    width = ours.encoder.width
    tower |= {"post_layernorm.weight": torch.ones(width), "post_layernorm.bias": torch.zeros(width)}
    connector = {name: x for name, x in ours.connector.state_dict().items() if name != "newline"}
    pairs = {b: a for a, b in _CONNECTOR.pairs}
    return {
        **{f"vision_tower.{name}": x.contiguous() for name, x in tower.items()},
        **{f"multi_modal_projector.{pairs[name]}": x for name, x in connector.items()},
        "image_newline": ours.connector.newline.detach(),
        **{
            f"language_model.{name}": x
            for name, x in to_llama(ours.decoder.state_dict(), ours.decoder.config).items()
        },
    }


SIGLIP_SO = ImageTowerConfig(
    width=1152,
    depth=26,
    num_heads=16,
    mlp_ratio=4304 / 1152,
    num_frames=1,
    size=378,
    patch_size=14,
    pool="none",
    final_norm=False,
    gelu="tanh",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
"""SigLIP's so400m at 384 pixels without its last block: 27 x 27 tokens of 14 pixels, 6 pixels are not read."""
_QWEN2 = {"rope_base": 1e6, "qkv_bias": True, "norm_eps": 1e-6}
QWEN2_0B5 = DecoderConfig(
    vocab_size=151_936, width=896, depth=24, num_heads=14, num_kv_heads=2, mlp_dim=4864, tied=True, **_QWEN2
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
        objective=LlavaOnevisionConfig(
            encoder=replace(
                SIGLIP_SO,
                width=64,
                depth=2,
                num_heads=4,
                mlp_ratio=2.0,
                size=size,
                patch_size=8,
                linear_init="glorot",
            ),
            decoder=DecoderConfig(vocab_size=128, width=64, depth=2, num_heads=4, mlp_dim=128, qkv_bias=True),
            tile=size,
            most_rows=2,
        ),
        optim=AdamW(lr=2e-3),
        train=Loop(length=Steps(100)),
    )


def stage1_0b5() -> Run:
    """The connector alone, on 558K captions of images seen as a whole; Qwen2-0.5B."""
    return _stage(QWEN2_0B5, "1")


def stage1_7b() -> Run:
    """The same with Qwen2-7B: 17.0M of 8.0B parameters are trained."""
    return _stage(QWEN2_7B, "1")


def stage1_72b() -> Run:
    """The same with Qwen2-72B."""
    return _stage(QWEN2_72B, "1")


def stage1_5_7b() -> Run:
    """All parts, on 4M descriptions of images in tiles: knowledge of high quality."""
    return _stage(QWEN2_7B, "1.5")


def stage2a_7b() -> Run:
    """All parts, on 3.2M instructions about single images."""
    return _stage(QWEN2_7B, "2a")


def stage2b_7b() -> Run:
    """All parts, on 1.6M instructions about single images, several, and videos of 32 frames."""
    return _stage(QWEN2_7B, "2b")


def lora() -> Run:
    """A published model (``--init``, of any size) on one's own conversations: its language model at rank 8."""
    run = _stage(QWEN2_7B, "2b")
    assert isinstance(run.objective, LlavaOnevisionConfig)
    adaptation = Adaptation(rank=8, alpha=16.0, layers=ADAPTABLE)
    clip = replace(run.data.clip, num_frames=8)
    return replace(
        run,
        data=replace(run.data, clip=clip, reads=replace(run.data.reads, max_length=4096), batch_size=8),
        objective=replace(run.objective, trains=(), adaptation=adaptation),
        optim=replace(run.optim, lr=1e-4, rates=()),
        train=replace(run.train, length=Epochs(1)),
    )


def _stage(decoder: DecoderConfig, stage: Literal["1", "1.5", "2a", "2b"]) -> Run:
    """One stage: the data's size and number, and what is trained at which rate, the encoder at a fifth."""
    first, mixed = stage == "1", stage == "2b"
    trains: tuple[Part, ...] = ("connector",) if first else ("encoder", "connector", "decoder")
    samples, batch_size = (
        {"1": 558_000, "1.5": 4_000_000, "2a": 3_200_000, "2b": 1_600_000}[stage],
        512 if first else 256,
    )
    size = 384 if first or mixed else 768
    return Run(
        data=Data(
            clip=Clip(num_frames=32 if mixed else 1, sampling="uniform", size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            reads=Conversations(format="caption" if first else "hub", max_length=32_768, visuals=12 if mixed else 1),
            batch_size=batch_size,
            num_workers=8,
        ),
        objective=LlavaOnevisionConfig(
            encoder=SIGLIP_SO, decoder=decoder, trains=trains, most_rows=0 if first else 6
        ),
        optim=AdamW(
            lr=1e-3 if first else 1e-5,
            betas=(0.9, 0.999),
            weight_decay=0.0,
            schedule=Cosine(warmup=0.03),
            rates=() if first else (("encoder", 0.2),),
        ),
        train=Loop(length=Steps(samples // batch_size), precision="bfloat16", checkpoint=True),
    )

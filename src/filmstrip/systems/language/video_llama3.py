"""Video-LLaMA 3: the encoder reads images and frames at their own shape, and what does not change from one frame to
the next is left out.

SigLIP's image transformer has rotary positions of rows and columns in place of learned ones. Of a video, 2 x 2 tokens
become one by their mean, and those whose pixels have hardly changed since the frame before are dropped (DiffFP): the
first frame stays whole, and every frame keeps a token. The frames' times stand among them as text. Zhang et al.,
"VideoLLaMA 3: Frontier Multimodal Foundation Models for Image and Video Understanding", 2025. Each stage starts from
the one before:

    filmstrip train language.video_llama3:stage1_7b --data CAPTIONS.json --objective.decoder-run QWEN2_5 \\
        --data.reads.tokenizer QWEN2_5
    filmstrip train language.video_llama3:stage4_7b --data DIALOGUES.json --init RUN ...
    filmstrip train language.video_llama3:lora --data OWN.jsonl --init hf:lkhl/VideoLLaMA3-2B-Image-HF

The network is ``models/native_vit.py``. Tokens are merged and dropped behind the encoder, by the pixels of two frames
that follow one another, as in the public code; its threshold, 0.1 of 255 on pixels of -1..1, is 0.1 / 510 of the
range of a pixel, the unit of ``threshold``. Times are written as there, ``Time 1.0s:``.

Where we deviate: frames over the budget of visual tokens are made smaller (published: fewer); clips are cut as
squares of one size in training, and seen at their own shape where a model is used (``see``). Key frames that are kept
whole, which the text has, are not built.

The paper reports of the 7B: MLVU 73.0, VideoMME 66.2, Perception Test 72.8; we measured none of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from filmstrip.bounds import AnyNumber, Count, Rate, Weight
from filmstrip.data.config import Augment, Clip, Data, NativeSize
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.errors import UserError
from filmstrip.models.connectors import MlpConnector, TokenwiseMlp
from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.llama_layout import ADAPTABLE, config_in_hub, decoder_config, from_llama, to_llama
from filmstrip.models.native_vit import NativeViT, NativeViTConfig
from filmstrip.models.siglip_layout import QKV, TOWER
from filmstrip.models.video_language import Places, Seen, Visuals
from filmstrip.nn.mlp import GELU
from filmstrip.nn.patches import conv_to_linear, linear_to_conv
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.language import Adaptation, Part, VideoLanguage, VideoLanguageConfig
from filmstrip.objectives.teachers import EncoderOnly
from filmstrip.protocols import Grid, as_float
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine
from filmstrip.video.geometry import native_size
from filmstrip.weights.hub import statistics_of
from filmstrip.weights.keymap import KeyMap, Weights, renamed
from filmstrip.weights.layers import fuse, unfuse

PUBLISHED = 0.1 / 510
"""The threshold of the public code, as a share of the range of a pixel."""


@dataclass(frozen=True, kw_only=True)
class NativeSiglipConfig(NativeViTConfig, ObjectiveConfig):
    """SigLIP's image transformer with rotary positions."""

    patch_bias: bool = True
    """Whether the layer that embeds patches has a bias."""
    final_norm: bool = True
    """Whether the last tokens are normalised."""
    gelu: GELU = "tanh"
    """Nonlinearity of the feed-forward networks."""
    mean: tuple[AnyNumber, AnyNumber, AnyNumber] = (0.5, 0.5, 0.5)
    """Mean RGB, subtracted from pixels in 0..1."""
    std: tuple[Rate, Rate, Rate] = (0.5, 0.5, 0.5)
    """Standard deviation of RGB, by which pixels are divided."""

    def build(self) -> EncoderOnly:
        """Build the network with fresh weights."""
        return EncoderOnly(NativeViT(self))


@dataclass(frozen=True, kw_only=True)
class VideoLlama3Config(VideoLanguageConfig):
    """An image transformer for frames of any size, a connector, a language model, and what of a video is left out."""

    hub_types: ClassVar[tuple[str, ...]] = ("video_llama_3",)

    encoder: NativeSiglipConfig
    """Encoder of images and frames."""
    connector: MlpConnector = field(default_factory=MlpConnector)
    """Connector of visual tokens to the language model."""
    side: Count = 2
    """Number of rows and columns of a video's tokens that become one."""
    merges_images: bool = False
    """Whether images' tokens become one, too (the last stage)."""
    threshold: Weight | None = PUBLISHED
    """Mean change of a patch's pixels since the frame before, as a share of their range, up to which its token is
    dropped; none to keep all."""
    image_pixels: tuple[Count, Count] = (56 * 56, 28 * 28 * 1280)
    """Minimum and maximum number of pixels at which an image or a frame enters."""
    video_tokens: Count = 10_240
    """Maximum number of tokens of a video before some are dropped, unless its frames are at their minimum."""

    def for_clip(self, clip: Clip) -> Self:
        """Clips of any length and size are seen as they are."""
        return self

    def as_published(self, config: Mapping[str, Any], preprocessing: Mapping[str, Any], source: str) -> Self:
        """With the sizes of a ``VideoLlama3ForConditionalGeneration``.

        Raises:
            UserError: it has a part that this model does not have.
        """
        vision = _VISION_DEFAULTS | dict(config.get("vision_config") or {})
        if vision["hidden_act"] != "gelu_pytorch_tanh" or not isinstance(vision["patch_size"], int):
            raise UserError(f"{source} has another vision network than SigLIP's")
        encoder = replace(
            self.encoder,
            width=vision["hidden_size"],
            depth=vision["num_hidden_layers"],
            num_heads=vision["num_attention_heads"],
            mlp_dim=vision["intermediate_size"],
            patch_size=(1, vision["patch_size"], vision["patch_size"]),
            rope_base=float((vision.get("rope_parameters") or {}).get("rope_theta", 10_000.0)),
            norm_eps=vision["layer_norm_eps"],
            **(statistics_of(preprocessing) if "image_mean" in preprocessing else {}),
        )
        text = dict(config.get("text_config") or {"model_type": "qwen2"})
        tied = text.get("tie_word_embeddings", False) or config.get("tie_word_embeddings", False)
        size = preprocessing.get("size") or {}
        least = preprocessing.get("min_pixels") or size.get("shortest_edge") or self.image_pixels[0]
        most = preprocessing.get("max_pixels") or size.get("longest_edge") or self.image_pixels[1]
        return replace(
            self,
            encoder=encoder,
            connector=MlpConnector(),
            decoder=decoder_config({**text, "tie_word_embeddings": tied}, source),
            image_pixels=(least, most),
        )

    def frame_sizes(self, native: NativeSize) -> NativeSize:
        """Those of this network's patches and range of pixels."""
        return native.of_network(
            patch=self.encoder.patch_size[1],
            merged=self.side,
            image_pixels=self.image_pixels,
            video_pixels=self.image_pixels,
        )

    def build(self) -> VideoLlama3:
        """Build the model with fresh weights.

        Raises:
            UserError: the language model is both trained and adapted, or nothing is trained.
        """
        return VideoLlama3(self)


_VISION_DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "patch_size": 16,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu_pytorch_tanh",
}
"""What a ``config.json`` may leave out of the encoder."""


def changed(video: Tensor, patch: int, threshold: float) -> Tensor:
    """Which patches of ``B T C H W`` video (pixels in 0..1) have changed since the frame before, ``B T h w`` bool.

    By more than the threshold in the mean of a patch's pixels (DiffFP). The first frame has changed; of a frame in
    which nothing has, its first patch stands for it.
    """
    steps = (video[:, 1:] - video[:, :-1]).abs()
    means = reduce(steps, "b t c (h p) (w q) -> b t h w", "mean", p=patch, q=patch)
    height, width = (size // patch for size in video.shape[3:])
    whole = torch.ones((len(video), 1, height, width), dtype=torch.bool, device=video.device)
    kept = torch.cat([whole, means > threshold], dim=1)
    first = torch.zeros_like(kept)
    first[..., 0, 0] = True
    return kept | (first & ~kept.flatten(2).any(dim=2)[..., None, None])


class VideoLlama3(VideoLanguage):
    """A language model that reads of every frame of a video what has changed; what it sees are a visual a frame."""

    frames_apart = True
    takes_native = True
    config: VideoLlama3Config
    encoder: NativeViT
    connector: TokenwiseMlp

    def size_of(self, frames: int, height: int, width: int) -> tuple[int, int]:
        """Height and width at which frames of an image or a video enter.

        Raises:
            UserError: they are too long.
        """
        multiple = self.encoder.patch_size[1] * self.config.side
        least, most = self.config.image_pixels
        if frames > 1:
            most = max(least, min(most, self.config.video_tokens // frames * multiple**2))
        return native_size(height, width, multiple=multiple, min_pixels=least, max_pixels=most)

    def entered(self, clip: Clip) -> tuple[int, int]:
        """Height and width at which frames of a clip enter."""
        return self.size_of(clip.num_frames, clip.size, clip.size)

    def side_of(self, frames: int) -> int:
        """Number of rows and columns of an image's or a video's tokens that become one."""
        return self.config.side if frames > 1 or self.config.merges_images else 1

    def num_tokens(self, clip: Clip) -> int:
        """Number of tokens of the language model that a clip takes at most."""
        height, width = self.entered(clip)
        patch = self.encoder.patch_size[1] * self.side_of(clip.num_frames)
        return clip.num_frames * (height // patch) * (width // patch)

    def see(self, video: Tensor) -> Visuals:  # type: ignore[override]  # rows keep other numbers of tokens
        """What is seen of ``B T C H W`` video of any size, a visual a frame; zeros for a model that is blind."""
        seen = Visuals.of_rows(self.frames(video))
        return seen if self.sees else seen * 0

    def see_each(self, video: Tensor, frames: Tensor, sizes: Tensor | None = None) -> Visuals:
        """What is seen of several images and videos a row, a visual a frame; see
        :class:`~filmstrip.models.video_language.VideoLanguageModel`."""
        rows = []
        for row, (clips, counts) in enumerate(zip(video, frames.tolist())):
            seen_here: list[Tensor] = []
            for number, part in enumerate(clips[: sum(counts)].split(counts)):
                if len(part):
                    height, width = video.shape[3:] if sizes is None else sizes[row, number].tolist()
                    seen_here += self.frames(part[None, ..., :height, :width])[0]
            rows.append(seen_here)
        seen = Visuals.of_rows(rows)
        return seen if self.sees else seen * 0

    def frames(self, video: Tensor) -> list[list[Tensor]]:
        """The tokens ``N D`` of each frame of each row that are not dropped."""
        pixels = self.resized(video)
        count = video.shape[1]
        tokens, grid = self.encoded(pixels)
        side = self.side_of(count)
        maps = rearrange(tokens, "b (t h w) d -> (b t) d h w", t=grid.t, h=grid.h)
        if side > 1:
            maps = F.interpolate(maps, size=(grid.h // side, grid.w // side), mode="bilinear")
        merged = Grid(grid.t, *maps.shape[2:])
        projected = self.connector(rearrange(maps, "(b t) d h w -> b (t h w) d", t=grid.t), merged)
        rows = rearrange(projected, "b (t n) d -> b t n d", t=grid.t)
        kept = self.kept(pixels).flatten(2)
        return [[frame[own] for frame, own in zip(*pair)] for pair in zip(rows, kept)]

    def resized(self, video: Tensor) -> Tensor:
        """Video at the size at which it enters."""
        size = self.size_of(video.shape[1], *video.shape[3:])
        if size == tuple(video.shape[3:]):
            return video
        flat = as_float(video).flatten(0, 1)
        resized = F.interpolate(flat, size=size, mode="bicubic", antialias=True, align_corners=False)
        return resized.clamp(0, 1).unflatten(0, video.shape[:2])

    def kept(self, video: Tensor) -> Tensor:
        """Which tokens of video at the size at which it enters are kept, ``B T h w`` bool."""
        patch = self.encoder.patch_size[1] * self.side_of(video.shape[1])
        limit = self.config.threshold
        return changed(as_float(video), patch, -1.0 if limit is None else limit)

    def sequence(self, visual: Seen, text: Tensor, text_length: Tensor) -> tuple[Tensor, Places]:
        """See :class:`~filmstrip.models.video_language.VideoLanguageModel`; at a single place of a text all frames
        of its video stand, one after another."""
        assert isinstance(visual, Visuals)
        together = torch.zeros_like(visual.grids)
        together[:, 0, :2] = 1
        together[:, 0, 2] = visual.sizes.sum(dim=1)
        single = torch.isin(text, self.placeholders).sum(dim=1) <= 1
        visual = Visuals(visual.tokens, torch.where(single[:, None, None], together, visual.grids))
        return super().sequence(visual, text, text_length)

    def from_transformers(self, theirs: Mapping[str, Tensor]) -> Weights:
        """The weights from those of a ``VideoLlama3ForConditionalGeneration``.

        Raises:
            UserError: a weight has no place here.
        """
        return from_video_llama3(theirs, self)

    def to_transformers(self) -> tuple[dict[str, Any], Weights]:
        """A ``VideoLlama3ForConditionalGeneration``.

        Raises:
            UserError: its language model is of no family there, or the place of a visual is outside its vocabulary.
        """
        vision = self.encoder.config
        config = {
            "model_type": "video_llama_3",
            "architectures": ["VideoLlama3ForConditionalGeneration"],
            "vision_config": {
                "model_type": "video_llama_3_vision",
                "hidden_size": vision.width,
                "intermediate_size": vision.mlp_dim,
                "num_hidden_layers": vision.depth,
                "num_attention_heads": vision.num_heads,
                "patch_size": vision.patch_size[1],
                "layer_norm_eps": vision.norm_eps,
                "rope_parameters": {"rope_type": "axial", "rope_theta": vision.rope_base},
            },
            "text_config": config_in_hub(self.decoder.config),
            "image_token_id": self.place("<image>"),
            "video_token_id": self.place("<video>"),
            "tie_word_embeddings": self.decoder.config.tied,
        }
        return config, to_video_llama3(self)

    def in_transformers(self, video: Tensor, text: Tensor) -> dict[str, Tensor]:
        """Rows of normalised pixels, their grids, which tokens are kept, and ids; of rows that keep equally many."""
        patch, side = self.encoder.patch_size[1], self.side_of(video.shape[1])
        grid = self.grid_of(video.shape[1], *video.shape[3:])
        rows = rearrange(
            self.encoder.embed.normalise(video),
            "b t c (h m p) (w n q) -> (b t h w m n) (c p q)",
            m=side,
            n=side,
            p=patch,
            q=patch,
        )
        kept = self.kept(video)
        count = len(video)
        return {
            "pixel_values_videos": rows,
            "video_grid_thw": torch.tensor([tuple(grid)] * count),
            "video_merge_sizes": torch.tensor([side] * count),
            "video_compression_mask": kept.flatten(),
            "input_ids": self.spread(text, int(kept[0].sum())),
        }


_VISION = KeyMap((*TOWER, ("post_layernorm.weight", "norm.weight"), ("post_layernorm.bias", "norm.bias")))
_PROJECTOR = (("readout.0.", "layers.0."), ("readout.2.", "layers.2."))
_SPELLINGS = (
    (r"^model\.(?=vision_model|projector|language_model)", ""),
    (r"^(?:model\.)?vision_encoder\.", "vision_model."),
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^language_model\.(?:model\.)?", "model."),
)
"""Names of ``transformers``' models and files."""


def from_video_llama3(theirs: Mapping[str, Tensor], ours: VideoLlama3) -> Weights:
    """Our weights from those of a ``VideoLlama3ForConditionalGeneration``; ``ours`` has their sizes.

    Raises:
        UserError: they have names that no such model has.
    """
    theirs = {renamed(name, _SPELLINGS): tensor for name, tensor in theirs.items()}
    rooms = ("vision_model.", "projector.")
    tower, projector = ({n.removeprefix(room): x for n, x in theirs.items() if n.startswith(room)} for room in rooms)
    words = {name: x for name, x in theirs.items() if not name.startswith(rooms)}
    seen = _VISION.ours(fuse(tower, QKV))
    if (patches := seen.get("embed.proj.weight")) is not None:
        seen["embed.proj.weight"] = conv_to_linear(patches[:, :, None])
    statistics = {name: x for name, x in ours.encoder.state_dict().items() if "normalise." in name}
    return {
        **{f"encoder.{name}": x for name, x in (seen | statistics).items()},
        **{f"connector.{_exchanged(name, _PROJECTOR)}": x for name, x in projector.items()},
        **{f"decoder.{name}": x for name, x in from_llama(words, ours.decoder.config).items()},
    }


def to_video_llama3(ours: VideoLlama3) -> Weights:
    """The inverse of :func:`from_video_llama3`, by the names in files."""
    state = {name: x for name, x in ours.encoder.state_dict().items() if "normalise." not in name}
    state["embed.proj.weight"] = linear_to_conv(state["embed.proj.weight"], ours.encoder.patch_size)[:, :, 0]
    backwards = [(b, a) for a, b in _PROJECTOR]
    room = "model.language_model."
    text = {
        name.replace("model.", room, 1) if name.startswith("model.") else name: x
        for name, x in to_llama(ours.decoder.state_dict(), ours.decoder.config).items()
    }
    return {
        **{f"model.vision_model.{name}": x.contiguous() for name, x in unfuse(_VISION.theirs(state), QKV).items()},
        **{f"model.projector.{_exchanged(n, backwards)}": x for n, x in ours.connector.state_dict().items()},
        **text,
    }


def _exchanged(name: str, pairs: Sequence[tuple[str, str]]) -> str:
    """A name with the beginning that a pair gives for its own."""
    return next((ours + name.removeprefix(theirs) for theirs, ours in pairs if name.startswith(theirs)), name)


SIGLIP_SO = NativeSiglipConfig(width=1152, depth=27, num_heads=16, mlp_dim=4304, patch_size=(1, 14, 14))
"""SigLIP's so400m without its learned positions."""
_QWEN2_5 = {"rope_base": 1e6, "qkv_bias": True, "norm_eps": 1e-6}
QWEN2_5_1B5 = DecoderConfig(
    vocab_size=151_936, width=1536, depth=28, num_heads=12, num_kv_heads=2, mlp_dim=8960, tied=True, **_QWEN2_5
)
QWEN2_5_7B = DecoderConfig(
    vocab_size=152_064, width=3584, depth=28, num_heads=28, num_kv_heads=4, mlp_dim=18_944, **_QWEN2_5
)


def tiny() -> Run:
    """Questions about moving shapes, all parts from scratch; trains in seconds on two CPU cores."""
    size, frames = 32, 4
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=200, num_test=40, num_frames=8, size=size),
            clip=Clip(num_frames=frames, sampling="uniform", size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            reads=Conversations(max_length=128, timestamps=True),
            batch_size=16,
        ),
        objective=VideoLlama3Config(
            encoder=NativeSiglipConfig(width=64, depth=2, num_heads=4, mlp_dim=128, patch_size=(1, 8, 8)),
            decoder=DecoderConfig(vocab_size=128, width=64, depth=2, num_heads=4, mlp_dim=128, qkv_bias=True),
            threshold=0.04,
            image_pixels=(16 * 16, 64 * 64),
        ),
        optim=AdamW(lr=2e-3),
        train=Loop(length=Steps(100)),
    )


def stage1_2b() -> Run:
    """The encoder and the connector, on 15.57M images with captions, with Qwen2.5-1.5B frozen."""
    return _stage(QWEN2_5_1B5, 1)


def stage1_7b() -> Run:
    """The same with Qwen2.5-7B."""
    return _stage(QWEN2_5_7B, 1)


def stage2_7b() -> Run:
    """All parts, on 21.97M images and text."""
    return _stage(QWEN2_5_7B, 2)


def stage3_7b() -> Run:
    """All parts, on 19.05M instructions about images and videos; what does not change is dropped."""
    return _stage(QWEN2_5_7B, 3)


def stage4_2b() -> Run:
    """As ``stage4_7b``, with Qwen2.5-1.5B."""
    return _stage(QWEN2_5_1B5, 4)


def stage4_7b() -> Run:
    """All parts, on 5.71M instructions, most of them about videos; images' tokens are merged, too."""
    return _stage(QWEN2_5_7B, 4)


def lora() -> Run:
    """A published model (``--init``, of any size) on one's own conversations: its language model at rank 8."""
    run = _stage(QWEN2_5_7B, 4)
    assert isinstance(run.objective, VideoLlama3Config)
    adaptation = Adaptation(rank=8, alpha=16.0, layers=ADAPTABLE)
    reads, clip = replace(run.data.reads, max_length=4096), replace(run.data.clip, num_frames=8)
    return replace(
        run,
        data=replace(run.data, clip=clip, reads=reads, batch_size=8),
        objective=replace(run.objective, trains=(), adaptation=adaptation),
        optim=replace(run.optim, lr=1e-4, rates=()),
        train=replace(run.train, length=Epochs(1)),
    )


def _stage(decoder: DecoderConfig, stage: Literal[1, 2, 3, 4]) -> Run:
    """One stage; the vision's rate is a hundredth of the connector's at first, then a fifth of the others'."""
    trains: tuple[Part, ...] = ("encoder", "connector") if stage == 1 else ("encoder", "connector", "decoder")
    # 60 frames of 13 x 13 tokens are within the budget of 10,240.
    frames, size = (60, 364) if stage > 2 else (1, 448)
    return Run(
        data=Data(
            clip=Clip(num_frames=frames, sampling="uniform", size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            reads=Conversations(
                format="caption" if stage == 1 else "hub",
                max_length=16_384,
                timestamps=frames > 1,
                visuals=8 if stage > 2 else 1,
            ),
            batch_size=256,
            num_workers=8,
        ),
        objective=VideoLlama3Config(encoder=SIGLIP_SO, decoder=decoder, trains=trains, merges_images=stage == 4),
        optim=AdamW(
            lr=1e-3 if stage == 1 else 1e-5,
            betas=(0.9, 0.999),
            weight_decay=0.0,
            schedule=Cosine(warmup=0.03),
            rates=(("encoder", 0.01 if stage == 1 else 0.2),),
        ),
        train=Loop(length=Epochs(1), precision="bfloat16", checkpoint=True),
    )

"""LLaVA: a language model sees the patches of a frozen image encoder through a small connector, and learns to follow
instructions about them.

What is new are the data: conversations, descriptions and reasoning that a language model wrote about captions and
boxes. First the connector alone learns, from captions; then it and the language model, from conversations. Liu et
al., "Visual Instruction Tuning", NeurIPS 2023 (``v0``, one linear layer), and "Improved Baselines with Visual
Instruction Tuning", CVPR 2024 (``v15``, two layers and 336 pixels). Images are videos of one frame; of a longer clip
every frame's patches are given, one frame after another.

    filmstrip train language.llava:v15_7b_stage1 --data blip_laion_cc_sbu_558k.json --data.reads.media IMAGES \\
        --objective.decoder-run VICUNA --data.reads.tokenizer VICUNA --objective.encoder-run CLIP
    filmstrip train language.llava:v15_7b_stage2 --data llava_v1_5_mix665k.json --init RUN ...
    filmstrip train language.llava:v15_7b_lora --data OWN.jsonl --init hf:llava-hf/llava-1.5-7b-hf
    filmstrip train language.llava:tiny

The network is in ``models/video_language.py`` and ``objectives/language.py``.

Where we deviate: frames are cropped to a square, not padded to one (LLaVA-1.5 pads); the image stands where the data
say, and is not moved to the front or the back at random in the first stage; ``tiny`` trains all parts from scratch.

The paper reports 85.1 of GPT-4's score on its own questions for the full data, 73.8 for conversations alone and 21.5
for no instruction data; we measured none of these. At small size 98.3% of answers about unseen pictures are right,
word for word, after both stages, 0.0% after the first alone, and 22.0% blind (``filmstrip claims llava_tuning``,
three seeds).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.errors import UserError
from filmstrip.models.connectors import LinearConnector, MlpConnector, TokenwiseMlp
from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.llama_layout import ADAPTABLE, config_in_hub, decoder_config
from filmstrip.models.llava_layout import from_llava, to_llava
from filmstrip.objectives.language import Adaptation, VideoLanguage, VideoLanguageConfig
from filmstrip.objectives.teachers import ImageTransformerConfig, TowerConfig
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine
from filmstrip.weights.hub import statistics_of
from filmstrip.weights.keymap import Weights

VICUNA_7B = DecoderConfig(
    vocab_size=32_000, width=4096, depth=32, num_heads=32, mlp_dim=11_008, norm_eps=1e-5, rope_base=10_000.0
)
VICUNA_13B = replace(VICUNA_7B, width=5120, depth=40, num_heads=40, mlp_dim=13_824)
"""Sizes of Vicuna, which are LLaMA's."""
CLIP_L = TowerConfig(
    model_type="clip_vision_model",
    settings=(
        ("hidden_size", 1024),
        ("intermediate_size", 4096),
        ("num_attention_heads", 16),
        ("num_hidden_layers", 24),
        ("patch_size", 14),
    ),
)
"""CLIP's ViT-L/14 at 224 pixels."""
CLIP_L_336 = replace(CLIP_L, settings=(*CLIP_L.settings, ("image_size", 336)))


class Llava(VideoLanguage):
    """LLaVA, which ``transformers`` has as ``LlavaForConditionalGeneration``."""

    def from_transformers(self, theirs: Mapping[str, Tensor]) -> Weights:
        """The weights from those of a LLaVA: of ``transformers``, or of the authors, whose files have no encoder.

        Raises:
            UserError: a weight has no place here, or one of the connector or the language model is missing.
        """
        return from_llava(theirs, self, self.decoder.config)

    def to_transformers(self) -> tuple[dict[str, Any], Weights]:
        """A ``LlavaForConditionalGeneration``.

        Raises:
            UserError: it has no such encoder or connector.
        """
        encoder, layers = (
            self.config.encoder,
            self.connector.layers if isinstance(self.connector, TokenwiseMlp) else (),
        )
        if not isinstance(encoder, TowerConfig) or len(layers) != 3:
            raise UserError(
                "transformers' LLaVA has a vision network of transformers and a connector of two layers: others "
                "cannot be written"
            )
        config = {
            "model_type": "llava",
            "architectures": ["LlavaForConditionalGeneration"],
            "vision_config": {"model_type": encoder.model_type, **dict(encoder.settings)},
            "text_config": config_in_hub(self.decoder.config),
            "image_token_id": self.place("<image>"),
            "vision_feature_layer": self.layer,
            "vision_feature_select_strategy": "default" if self.encoder.prefix else "full",
            "tie_word_embeddings": self.decoder.config.tied,
        }
        return config, to_llava(self.state_dict(), self.decoder.config)

    def in_transformers(self, video: Tensor, text: Tensor) -> dict[str, Tensor]:
        """Normalised pixels of all frames, and ids; see :class:`~filmstrip.objectives.language.VideoLanguage`."""
        pixels = self.encoder.normalise(video).flatten(0, 1)
        return {"pixel_values": pixels, "input_ids": self.spread(text, self.see(video[:1]).shape[1])}


@dataclass(frozen=True, kw_only=True)
class LlavaConfig(VideoLanguageConfig):
    """An image encoder, a connector and a language model."""

    hub_types: ClassVar[tuple[str, ...]] = ("llava",)

    def as_published(self, config: Mapping[str, Any], preprocessing: Mapping[str, Any], source: str) -> Self:
        """With the sizes of a ``LlavaForConditionalGeneration``.

        Raises:
            UserError: it reads several layers, or its connector is another one.
        """
        layer = config.get("vision_feature_layer", -2)
        if not isinstance(layer, int) or layer >= 0 or not config.get("multimodal_projector_bias", True):
            raise UserError(f"{source} reads other layers of its encoder than one counted from the last, {layer}")
        return replace(
            self,
            encoder=tower_of(config.get("vision_config") or {}, preprocessing),
            layer=layer,
            connector=MlpConnector(),
            decoder=decoder_config(config.get("text_config") or {"model_type": "llama"}, source),
        )

    def build(self) -> Llava:
        """Build the model with fresh weights.

        Raises:
            UserError: the encoder's configuration has none, the language model is both trained and adapted, or
                nothing is trained.
        """
        return Llava(self)


def tower_of(config: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> TowerConfig:
    """A vision network of ``transformers`` by its part of a ``config.json``; what that leaves out is CLIP-L's."""
    kind = config.get("model_type", "clip_vision_model")
    kept = {k: v for k, v in config.items() if k in _TOWER and isinstance(v, (bool, int, float, str))}
    defaults = dict(CLIP_L_336.settings) if kind == "clip_vision_model" else {}
    pixels = statistics_of(preprocessing) if "image_mean" in preprocessing else {}
    return TowerConfig(model_type=kind, settings=tuple(sorted({**defaults, **kept}.items())), **pixels)


_TOWER = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
    "projection_dim",
    "vision_use_head",
)
"""Sizes of a vision network that decide what it computes."""


def _data(*, size: int, form: Literal["caption", "v0", "v1"], batch_size: int) -> Data:
    return Data(
        clip=Clip(num_frames=1, stride=1, size=size, short_side=(size, size)),
        augment=Augment(mirror=0.0),
        reads=Conversations(format=form, max_length=2048),
        batch_size=batch_size,
        num_workers=8,
    )


def _run(objective: LlavaConfig, data: Data, *, lr: float, epochs: int) -> Run:
    return Run(
        data=data,
        objective=objective,
        optim=AdamW(lr=lr, betas=(0.9, 0.999), weight_decay=0.0, schedule=Cosine(warmup=0.03)),
        train=Loop(length=Epochs(epochs), precision="bfloat16", checkpoint=True),
    )


def _v0(decoder: DecoderConfig, *, stage: int) -> Run:
    objective = LlavaConfig(
        encoder=CLIP_L,
        layer=-2,
        connector=LinearConnector(),
        decoder=decoder,
        trains=("connector",) if stage == 1 else ("connector", "decoder"),
    )
    form: Literal["caption", "v0"] = "caption" if stage == 1 else "v0"
    data = _data(size=224, form=form, batch_size=128 if stage == 1 else 32)
    return _run(objective, data, lr=2e-3 if stage == 1 else 2e-5, epochs=1 if stage == 1 else 3)


def _v15(decoder: DecoderConfig, *, stage: int) -> Run:
    objective = LlavaConfig(
        encoder=CLIP_L_336,
        layer=-2,
        connector=MlpConnector(),
        decoder=decoder,
        trains=("connector",) if stage == 1 else ("connector", "decoder"),
    )
    form: Literal["caption", "v1"] = "caption" if stage == 1 else "v1"
    data = _data(size=336, form=form, batch_size=256 if stage == 1 else 128)
    return _run(objective, data, lr=1e-3 if stage == 1 else 2e-5, epochs=1)


def tiny() -> Run:
    """Moving shapes and questions about them, all parts from scratch; trains in seconds on two CPU cores."""
    size, frames, patch = 32, 4, 16
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=200, num_test=40, num_frames=8, size=size),
            clip=Clip(num_frames=frames, sampling="uniform", size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            reads=Conversations(max_length=128),
            batch_size=16,
        ),
        objective=LlavaConfig(
            encoder=ImageTransformerConfig(
                width=64,
                depth=2,
                num_heads=4,
                num_frames=frames,
                size=size,
                patch_size=patch,
                linear_init="glorot",
            ),
            decoder=DecoderConfig(vocab_size=128, width=64, depth=2, num_heads=4, mlp_dim=128),
        ),
        optim=AdamW(lr=3e-3),
        train=Loop(length=Steps(100)),
        evals=(),
    )


def v0_7b_stage1() -> Run:
    """The linear layer alone, on 595K captions of CC3M: 4.2M parameters of Vicuna-7B's 6.7B and CLIP's 0.3B."""
    return _v0(VICUNA_7B, stage=1)


def v0_7b_stage2() -> Run:
    """The linear layer and Vicuna-7B, on 158K conversations, descriptions and chains of reasoning."""
    return _v0(VICUNA_7B, stage=2)


def v0_13b_stage1() -> Run:
    """As ``v0_7b_stage1``, with Vicuna-13B."""
    return _v0(VICUNA_13B, stage=1)


def v0_13b_stage2() -> Run:
    """As ``v0_7b_stage2``, with Vicuna-13B: the model of the paper's tables."""
    return _v0(VICUNA_13B, stage=2)


def v15_7b_stage1() -> Run:
    """LLaVA-1.5: two layers, on 558K captions."""
    return _v15(VICUNA_7B, stage=1)


def v15_7b_stage2() -> Run:
    """LLaVA-1.5: the connector and Vicuna-7B, on 665K conversations."""
    return _v15(VICUNA_7B, stage=2)


def v15_13b_stage1() -> Run:
    """As ``v15_7b_stage1``, with Vicuna-13B."""
    return _v15(VICUNA_13B, stage=1)


def v15_13b_stage2() -> Run:
    """As ``v15_7b_stage2``, with Vicuna-13B."""
    return _v15(VICUNA_13B, stage=2)


def v15_7b_lora() -> Run:
    """As ``v15_7b_stage2``, with all layers of Vicuna-7B adapted at rank 128 in place of training its weights.

    The connector's rate is a tenth of the adaptation's, as the authors publish it.
    """
    run = _v15(VICUNA_7B, stage=2)
    assert isinstance(run.objective, LlavaConfig)
    adaptation = Adaptation(rank=128, alpha=256.0, dropout=0.05, layers=ADAPTABLE)
    objective = replace(run.objective, trains=("connector",), adaptation=adaptation)
    return replace(run, objective=objective, optim=replace(run.optim, lr=2e-4, rates=(("connector", 0.1),)))

"""Image transformers, TimeSformer and ViViT in the layout of ``transformers``' files: encoders, classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from filmstrip.nn.patches import conv_to_linear, linear_to_conv
from filmstrip.weights.keymap import KeyMap, Weights, check_names
from filmstrip.weights.layers import LAYER, fuse, layers, unfuse

_CONV, _LINEAR = "embeddings.patch_embeddings.projection.weight", "embed.proj.weight"
_ATTENTION_BIAS = ("attention.attention.qkv.bias", "attention.qkv.bias")
_TIME = (
    ("temporal_layernorm.weight", "time_norm.weight"),
    ("temporal_layernorm.bias", "time_norm.bias"),
    ("temporal_attention.attention.qkv.weight", "time_attention.qkv.weight"),
    ("temporal_attention.attention.qkv.bias", "time_attention.qkv.bias"),
    ("temporal_attention.output.dense.weight", "time_attention.out.weight"),
    ("temporal_attention.output.dense.bias", "time_attention.out.bias"),
    ("temporal_dense.weight", "time_fc.weight"),
    ("temporal_dense.bias", "time_fc.bias"),
)


def _encoder(*rows: tuple[str, str]) -> KeyMap:
    return KeyMap(
        (
            (_CONV, _LINEAR),
            ("embeddings.patch_embeddings.projection.bias", "embed.proj.bias"),
            ("embeddings.cls_token", "cls_token"),
            ("embeddings.position_embeddings", "pos_embed"),
            ("embeddings.time_embeddings", "time_pos_embed"),
            *layers("encoder.layer", "blocks", (_ATTENTION_BIAS, *LAYER, *rows)),
            ("layernorm.weight", "norm.weight"),
            ("layernorm.bias", "norm.bias"),
        ),
        spare=(r"pooler\.dense\..*", r"embeddings\.mask_token"),
    )


@dataclass(frozen=True)
class Layout:
    """How one kind of model is written."""

    prefix: str
    """Prefix of the encoder's names in a file that also holds a classifier."""
    encoder: KeyMap
    fused: bool = False
    """Whether queries, keys and values are one matrix in the file."""

    @property
    def classifier(self) -> KeyMap:
        """Their classifier to :class:`~filmstrip.objectives.classification.Classification`."""
        inner = tuple((f"{self.prefix}.{a}", f"encoder.{b}") for a, b in self.encoder.pairs)
        return KeyMap((*inner, ("classifier.weight", "head.weight"), ("classifier.bias", "head.bias")))

    def encoder_from(self, theirs: Mapping[str, Tensor]) -> Weights:
        """The encoder's part of a file that may hold an encoder or a classifier.

        Raises:
            UserError: it holds anything else.
        """
        start = f"{self.prefix}."
        if any(name.startswith(start) for name in theirs):
            inner = [name for name in theirs if name.startswith(start)]
            check_names("this model", theirs, inner, spare=(r"classifier\..*",))
            theirs = {name.removeprefix(start): theirs[name] for name in inner}
        return self._ours(theirs, self.encoder)

    def classifier_from(self, theirs: Mapping[str, Tensor]) -> Weights:
        """A classifier's weights, ours from theirs.

        Raises:
            UserError: there is something in it that no such classifier has.
        """
        return self._ours(theirs, self.classifier)

    def classifier_to(self, ours: Mapping[str, Tensor], patch_size: tuple[int, int, int]) -> Weights:
        """A classifier's weights, theirs from ours, as ``save_pretrained`` names them."""
        theirs = self.classifier.theirs(ours)
        for name, tensor in theirs.items():
            if name.endswith(_CONV):
                conv = linear_to_conv(tensor, patch_size)
                theirs[name] = conv if self.prefix == "vivit" else conv[:, :, 0].contiguous()
            elif name.endswith("_token"):
                theirs[name] = tensor.view(1, 1, -1)
            elif name.endswith("_embeddings"):
                theirs[name] = tensor[None]
        return theirs if self.fused else unfuse(theirs)

    def _ours(self, theirs: Mapping[str, Tensor], keys: KeyMap) -> Weights:
        ours = keys.ours(theirs if self.fused else fuse(theirs))
        for name, tensor in ours.items():
            if name.endswith(_LINEAR):
                ours[name] = conv_to_linear(tensor if tensor.ndim == 5 else tensor[:, :, None])
            elif name.endswith("_token"):
                ours[name] = tensor.flatten()
            elif name.endswith("pos_embed"):
                ours[name] = tensor[0]
        return ours


IMAGE = Layout("vit", _encoder())
"""``ViTModel``, to :class:`~filmstrip.models.video_transformer.FrameTransformer`."""
TIMESFORMER = Layout("timesformer", _encoder(*_TIME), fused=True)
"""``TimesformerModel``, to :class:`~filmstrip.models.video_transformer.SpaceTimeTransformer`, or, of frames alone,
to :class:`~filmstrip.models.video_transformer.FrameTransformer`."""
VIVIT = Layout("vivit", _encoder())
"""``VivitModel`` (joint attention), to :class:`~filmstrip.models.video_transformer.SpaceTimeTransformer`."""

"""Our shared transformers in the layout of ``transformers``' files: encoders and classifiers, both ways.

VideoMAE's ViT, image transformers, TimeSformer and ViViT. The sizes that their ``config.json`` gives are in
:mod:`filmstrip.models.hub_networks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from filmstrip.nn.patches import conv_to_linear, linear_to_conv
from filmstrip.weights.keymap import KeyMap, Weights, check_names
from filmstrip.weights.layers import LAYER, fuse, layers, together, unfuse

_CONV, _LINEAR = "embeddings.patch_embeddings.projection.weight", "embed.proj.weight"
_BIAS = ("attention.attention.qkv.bias", "attention.qkv.bias")
_CLASSIFIER = (("classifier.weight", "head.weight"), ("classifier.bias", "head.bias"))


@dataclass(frozen=True)
class TransformersLayout:
    """How the models of one family are written."""

    model_name: str
    """Their bare model's class."""
    classifier_name: str
    """Their classifier's class."""
    prefix: str
    """Prefix of the encoder's names in a file that also holds what is around it."""
    encoder: KeyMap
    """Their bare model to our encoder, once queries, keys and values are fused."""
    head: tuple[tuple[str, str], ...] = _CLASSIFIER
    """What their classifier has around the encoder."""
    around: tuple[str, ...] = (r"classifier\..*",)
    """Patterns of all that is around an encoder in any model of the family."""
    tubelets: bool = False
    """Whether patches are three-dimensional."""
    fuse: Callable[[Mapping[str, Tensor]], Weights] = fuse
    unfuse: Callable[[Mapping[str, Tensor]], Weights] = unfuse

    @property
    def classifier(self) -> KeyMap:
        """Their classifier to :class:`~filmstrip.objectives.classification.Classification`."""
        return self.model(self.head)

    def model(self, rows: tuple[tuple[str, str], ...]) -> KeyMap:
        """A model that has the encoder, and ``rows`` around it."""
        return KeyMap((*((f"{self.prefix}.{a}", f"encoder.{b}") for a, b in self.encoder.pairs), *rows))

    def encoder_from(self, theirs: Mapping[str, Tensor]) -> Weights:
        """The encoder's part of a file that may hold an encoder or a model around one.

        Raises:
            UserError: it holds anything else.
        """
        start = f"{self.prefix}."
        if any(name.startswith(start) for name in theirs):
            inner = [name for name in theirs if name.startswith(start)]
            check_names("this model", theirs, inner, spare=self.around)
            theirs = {name.removeprefix(start): theirs[name] for name in inner}
        return self.ours(theirs, self.encoder)

    def ours(self, theirs: Mapping[str, Tensor], keys: KeyMap) -> Weights:
        """Our weights from theirs.

        Raises:
            UserError: theirs have a name that ``keys`` do not know, or an attention that is not whole.
        """
        ours = keys.ours(self.fuse(theirs))
        for name, tensor in ours.items():
            if name.endswith(_LINEAR):
                ours[name] = conv_to_linear(tensor if tensor.ndim == 5 else tensor[:, :, None])
            elif name.endswith("_token"):
                ours[name] = tensor.flatten()
            elif name.endswith("pos_embed"):
                ours[name] = tensor[0]
        return ours

    def theirs(self, ours: Mapping[str, Tensor], keys: KeyMap, patch_size: tuple[int, int, int]) -> Weights:
        """Their weights from ours, as ``save_pretrained`` names them.

        Raises:
            UserError: ours have a name that ``keys`` do not know.
        """
        theirs = keys.theirs(ours)
        for name, tensor in theirs.items():
            if name.endswith(_CONV):
                conv = linear_to_conv(tensor, patch_size)
                theirs[name] = conv if self.tubelets else conv[:, :, 0].contiguous()
            elif name.endswith("_token"):
                theirs[name] = tensor.view(1, 1, -1)
            elif name.endswith("_embeddings"):
                theirs[name] = tensor[None]
        return self.unfuse(theirs)


def _encoder(*rows: tuple[str, str]) -> KeyMap:
    return KeyMap(
        (
            (_CONV, _LINEAR),
            ("embeddings.patch_embeddings.projection.bias", "embed.proj.bias"),
            ("embeddings.cls_token", "cls_token"),
            ("embeddings.position_embeddings", "pos_embed"),
            ("embeddings.time_embeddings", "time_pos_embed"),
            *layers("encoder.layer", "blocks", (_BIAS, *LAYER, *rows)),
            ("layernorm.weight", "norm.weight"),
            ("layernorm.bias", "norm.bias"),
        ),
        spare=(r"pooler\.dense\..*", r"embeddings\.mask_token"),
    )


def _fuse_without_key_bias(theirs: Mapping[str, Tensor]) -> Weights:
    """One ``qkv`` weight for each attention, whose keys have no bias.

    The two biases have had two spellings in published files: ``q_bias`` beside the layer, and ``query.bias`` in it.
    """
    fused = {}
    for name, tensor in theirs.items():
        stem, _, part = name.partition(".attention.attention.")
        prefix = f"{stem}.attention.attention."
        if part in ("query.weight", "key.weight", "value.weight"):
            if f"{prefix}qkv.weight" not in fused:
                fused[f"{prefix}qkv.weight"] = together(theirs, prefix, ".weight")
        elif part in ("query.bias", "value.bias"):
            fused[f"{prefix}{part[0]}_bias"] = tensor
        else:
            fused[name] = tensor
    return fused


def _unfuse_without_key_bias(fused: Mapping[str, Tensor]) -> Weights:
    spelt = {
        name.replace("q_bias", "query.bias").replace("v_bias", "value.bias"): value for name, value in fused.items()
    }
    return unfuse(spelt)


BLOCK = (
    ("attention.attention.q_bias", "attention.q_bias"),
    ("attention.attention.v_bias", "attention.v_bias"),
    *LAYER,
)
"""A block of VideoMAE's encoder and decoder, once queries, keys and values are fused."""

VIDEOMAE = TransformersLayout(
    "VideoMAEModel",
    "VideoMAEForVideoClassification",
    "videomae",
    KeyMap(
        (
            (_CONV, _LINEAR),
            ("embeddings.patch_embeddings.projection.bias", "embed.proj.bias"),
            *layers("encoder.layer", "blocks", BLOCK),
            ("layernorm.weight", "norm.weight"),
            ("layernorm.bias", "norm.bias"),
        )
    ),
    head=(("fc_norm.weight", "norm.weight"), ("fc_norm.bias", "norm.bias"), *_CLASSIFIER),
    around=(r"decoder\..*", r"encoder_to_decoder\..*", r"mask_token", r"fc_norm\..*", r"classifier\..*"),
    tubelets=True,
    fuse=_fuse_without_key_bias,
    unfuse=_unfuse_without_key_bias,
)
"""``VideoMAEModel`` and its classifier, to :class:`~filmstrip.models.vit.ViT`."""

IMAGE = TransformersLayout("ViTModel", "ViTForImageClassification", "vit", _encoder())
"""``ViTModel``, to :class:`~filmstrip.models.video_transformer.FrameTransformer`."""

MAE = TransformersLayout(
    "ViTMAEModel",
    "ViTMAEForPreTraining",
    "vit",
    _encoder(),
    around=(r"decoder\..*",),
)
"""``ViTMAEModel``, which masks what it sees, to the same network, which does not."""

TIMESFORMER = TransformersLayout(
    "TimesformerModel",
    "TimesformerForVideoClassification",
    "timesformer",
    _encoder(
        ("temporal_layernorm.weight", "time_norm.weight"),
        ("temporal_layernorm.bias", "time_norm.bias"),
        ("temporal_attention.attention.qkv.weight", "time_attention.qkv.weight"),
        ("temporal_attention.attention.qkv.bias", "time_attention.qkv.bias"),
        ("temporal_attention.output.dense.weight", "time_attention.out.weight"),
        ("temporal_attention.output.dense.bias", "time_attention.out.bias"),
        ("temporal_dense.weight", "time_fc.weight"),
        ("temporal_dense.bias", "time_fc.bias"),
    ),
    fuse=dict,  # queries, keys and values are one matrix there
    unfuse=dict,
)
"""``TimesformerModel``, to :class:`~filmstrip.models.video_transformer.SpaceTimeTransformer`, or, of frames alone,
to :class:`~filmstrip.models.video_transformer.FrameTransformer`."""

VIVIT = TransformersLayout("VivitModel", "VivitForVideoClassification", "vivit", _encoder(), tubelets=True)
"""``VivitModel`` (joint attention), to :class:`~filmstrip.models.video_transformer.SpaceTimeTransformer`."""

"""GPT-2 (Radford et al. 2019) as ``transformers`` writes it: sizes from a ``config.json``, names of weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.models.decoder import DecoderConfig
from filmstrip.weights.keymap import KeyMap, Weights
from filmstrip.weights.layers import layers

KIND = "gpt2"
"""Its ``model_type``."""
_MATRICES = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
_MAP = KeyMap(
    (
        ("transformer.wte.weight", "embed.weight"),
        ("transformer.wpe.weight", "pos_embed"),
        *layers(
            "transformer.h",
            "blocks",
            tuple(
                (f"{theirs}.{kind}", f"{ours}.{kind}")
                for theirs, ours in (
                    ("ln_1", "norm1"),
                    ("attn.c_attn", "attention.qkv"),
                    ("attn.c_proj", "attention.out"),
                    ("ln_2", "norm2"),
                    ("mlp.c_fc", "mlp.fc1"),
                    ("mlp.c_proj", "mlp.fc2"),
                )
                for kind in ("weight", "bias")
            ),
        ),
        ("transformer.ln_f.weight", "norm.weight"),
        ("transformer.ln_f.bias", "norm.bias"),
        ("lm_head.weight", "head.weight"),
    ),
    spare=(r".*\.attn\.(?:masked_)?bias",),
)


def gpt2_config(config: Mapping[str, Any], source: str) -> DecoderConfig:
    """The sizes of a GPT-2 from its ``config.json``.

    Raises:
        UserError: it asks for a part that the decoder does not have.
    """
    told = {
        "vocab_size": 50_257,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_inner": None,
        "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new",
        "tie_word_embeddings": True,
        **config,
    }
    plain = {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    }
    if said := [f"{name} {told[name]!r}" for name, known in plain.items() if told.get(name, known[0]) not in known]:
        raise UserError(f"{source} asks for {', '.join(said)}, which this decoder does not have")
    return DecoderConfig(
        vocab_size=told["vocab_size"],
        width=told["n_embd"],
        depth=told["n_layer"],
        num_heads=told["n_head"],
        mlp_dim=told["n_inner"] or 4 * told["n_embd"],
        block="gpt2",
        positions="learned",
        max_length=told["n_positions"],
        norm_eps=told["layer_norm_epsilon"],
        tied=bool(told["tie_word_embeddings"]),
    )


def from_gpt2(theirs: Mapping[str, Tensor], config: DecoderConfig) -> Weights:
    """The weights of a :class:`~filmstrip.models.decoder.Decoder` from the state of a ``GPT2LMHeadModel``.

    A file may leave out the first part of names (``transformer.``), and of a tied model the output layer.

    Raises:
        UserError: it has a name that no such model has.
    """
    whole = {
        name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}": tensor
        for name, tensor in theirs.items()
    }
    if config.tied:
        whole.pop("lm_head.weight", None)
    return _MAP.ours({name: turned(name, tensor) for name, tensor in whole.items()})


def to_gpt2(ours: Mapping[str, Tensor]) -> Weights:
    """The inverse of :func:`from_gpt2`; a tied model's output layer is left out."""
    return {name: turned(name, tensor) for name, tensor in _MAP.theirs(ours).items()}


def turned(name: str, tensor: Tensor, matrices: tuple[str, ...] = _MATRICES) -> Tensor:
    """A tensor with the matrices of its layers, which lie the other way round there, transposed."""
    stem, _, kind = name.rpartition(".")
    return tensor.T.contiguous() if kind == "weight" and stem.endswith(matrices) else tensor

"""Names of LLaVA's weights in files of ``transformers`` and of the authors, and ours.

Networks of the same parts start from such files: an encoder, one linear layer or two, and a language model in
LLaMA's layout.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.llama_layout import from_llama, to_llama
from filmstrip.protocols import Objective
from filmstrip.weights.keymap import Weights, check_names, renamed

_SPELLINGS = (
    (r"^model\.(?=vision_tower|multi_modal_projector|language_model)", ""),
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^language_model\.(?:model\.)?", "model."),
    (r"^vision_tower\.(?:vision_model\.)?", "encoder."),
    (r"^(?:model\.)?mm_projector\.(?:(\d)\.)?", r"connector.layers.\1."),
    (r"^connector\.layers\.\.", "connector.layers.0."),
    (r"^multi_modal_projector\.linear_1\.", "connector.layers.0."),
    (r"^multi_modal_projector\.linear_2\.", "connector.layers.2."),
)
"""The names of ``transformers``' models and files, older ones included, and of the authors' files."""


def from_llava(theirs: Mapping[str, Tensor], model: Objective, decoder: DecoderConfig) -> Weights:
    """Our weights from those of a LLaVA; ``model`` has their sizes. Without an encoder's, its own stay.

    Raises:
        UserError: a weight has no place here, or one is missing.
    """
    renamed_all = {renamed(name, _SPELLINGS): tensor for name, tensor in theirs.items()}
    beside = ("encoder.", "connector.")
    words = {name: tensor for name, tensor in renamed_all.items() if not name.startswith(beside)}
    found = {f"decoder.{name}": tensor for name, tensor in from_llama(words, decoder).items()}
    found |= {name: tensor for name, tensor in renamed_all.items() if name.startswith("connector.")}
    found |= {
        name.replace("encoder.", "encoder.network.", 1): tensor
        for name, tensor in renamed_all.items()
        if name.startswith("encoder.") and not name.endswith("position_ids")
    }
    own = {name: tensor for name, tensor in model.state_dict().items() if not model.is_fresh(name)}
    constant = r"encoder\.normalise\..*"
    whole = any(name.startswith("encoder.") for name in renamed_all)
    check_names("this LLaVA", found, own, optional=(constant,) if whole else (r"encoder\..*",))
    return {**own, **found}


def to_llava(own: Mapping[str, Tensor], decoder: DecoderConfig) -> Weights:
    """The inverse of :func:`from_llava`, by the names in files of ``transformers``."""
    words = {name.removeprefix("decoder."): tensor for name, tensor in own.items() if name.startswith("decoder.")}
    found = {f"language_model.{name}": tensor for name, tensor in to_llama(words, decoder).items()}
    for name, tensor in own.items():
        if name.startswith("encoder.network."):
            found[name.replace("encoder.network.", "vision_tower.", 1)] = tensor
        elif name.startswith("connector.layers."):
            number, _, kind = name.removeprefix("connector.layers.").partition(".")
            found[f"multi_modal_projector.linear_{1 + int(number) // 2}.{kind}"] = tensor
    return found

"""Low-rank adaptation of an encoder, or of the part that a method says, whatever its network: its linear layers learn
a small product each, and all that comes after it is trained as always."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from filmstrip.errors import UserError
from filmstrip.inference import encoder_of
from filmstrip.nn.linear import Linear
from filmstrip.nn.lora import Lora, adapted_layers, merge
from filmstrip.objectives.config import LowRank
from filmstrip.protocols import Classifier, Detector, Objective
from filmstrip.weights.keymap import Weights


def adapted_part(objective: Objective) -> tuple[str, nn.Module]:
    """The part of an objective that ``--lora`` adapts, and its name: the encoder of one that fine-tunes it, or the
    part that the method says (``lora_part``).

    Raises:
        UserError: there is none.
    """
    if objective.lora_part is not None:
        return objective.lora_part, objective.get_submodule(objective.lora_part)
    if not isinstance(objective, Classifier | Detector):
        raise UserError(
            f"{type(objective).__name__} does not fine-tune an encoder: --lora is for systems of recognition and "
            "detection, and for generation.vdt"
        )
    encoder = encoder_of(objective)
    return next(name for name, module in objective.named_modules() if module is encoder), encoder


def adapt_part(objective: Objective, config: LowRank) -> None:
    """Adapt linear layers of an objective's encoder, or of the part that it says, in place; nothing else of that part
    is trained then.

    Raises:
        UserError: the objective has no such part, it is kept elsewhere, or it has no such layers.
    """
    name = type(objective).__name__
    prefix, part = adapted_part(objective)
    if objective.is_kept_elsewhere(f"{prefix}."):
        raise UserError(
            f"the {prefix} of {name} is frozen and kept elsewhere: let it be trained, which --lora then adapts, or "
            "leave out --lora"
        )
    linear = [name for name, module in part.named_modules() if type(module) in (nn.Linear, Linear)]
    chosen = [name for name in linear if not config.layers or any(_ends(name, end) for end in config.layers)]
    if unknown := [end for end in config.layers if not any(_ends(name, end) for name in linear)]:
        ends = sorted({name.rpartition(".")[2] for name in linear})
        raise UserError(
            f"lora.layers: no linear layer of the {prefix} ends in {unknown[0]!r}; they end in {', '.join(ends)}"
        )
    if not chosen:
        raise UserError(f"the {prefix} of {name} has no linear layer that could be adapted: train it without --lora")
    part.requires_grad_(False)
    for layer in chosen:
        owner, _, last = layer.rpartition(".")
        module = part.get_submodule(owner)
        adapted = Lora(getattr(module, last), rank=config.rank, alpha=config.alpha, dropout=config.dropout)
        setattr(module, last, adapted)


def merge_adaptation(objective: Objective) -> None:
    """Put the products of an adapted part into the weights of plain layers, in place: the same function."""
    merge(adapted_part(objective)[1])


def to_peft(objective: Objective) -> tuple[dict[str, Any], Weights]:
    """The adaptation of an objective as ``peft`` writes it for this network: ``adapter_config.json`` and
    ``adapter_model.safetensors``. What comes after the encoder is saved whole (``modules_to_save``).

    Raises:
        UserError: the objective is not adapted.
    """
    layers = dict(adapted_layers(objective))
    if not layers:
        raise UserError(f"{type(objective).__name__} is not adapted (--lora): there is no adaptation to write")
    weights: Weights = {}
    for name, layer in layers.items():
        for part in layer.names:
            for side, tensor in zip("AB", layer.product(part)):
                weights[f"base_model.model.{name}.lora_{side}.weight"] = tensor.detach().clone()
    saved = list(_trained_parts(objective))
    for part in saved:
        for name, tensor in objective.get_submodule(part).state_dict().items():
            weights[f"base_model.model.{part}.{name}"] = tensor.detach().clone()
    one = next(iter(layers.values()))
    return {
        "peft_type": "LORA",
        "r": one.rank,
        "lora_alpha": one.alpha,
        "lora_dropout": one.dropout.p,
        "target_modules": list(layers),
        "modules_to_save": saved,
        "bias": "none",
        "inference_mode": True,
    }, weights


def _trained_parts(objective: Objective) -> Iterator[str]:
    """Names of the objective's own parts that are trained and hold no adapted layer."""
    for name, module in objective.named_children():
        adapted = any(True for _ in adapted_layers(module))
        if not adapted and any(param.requires_grad for param in module.parameters()):
            yield name


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")

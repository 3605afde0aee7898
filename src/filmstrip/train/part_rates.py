"""Learning rates of parts of an objective, by patterns of parameter names; a rate of zero freezes a part."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import nn

from filmstrip.bounds import Weight
from filmstrip.errors import UserError
from filmstrip.protocols import Objective, find_encoder

BACKBONE = "backbone"
"""All layers but the last, as what is frozen."""
Rates = tuple[tuple[str, Weight], ...]
"""Patterns and factors. A pattern is a regular expression for the beginning of a parameter's name up to a dot or its
end: ``encoder`` is all of the encoder, ``encoder\\.blocks\\.[0-3]`` its first four blocks."""


def check_patterns(rates: Rates) -> None:
    """Refuse what is no regular expression.

    Raises:
        UserError: names the pattern and what is wrong with it.
    """
    for pattern, _ in rates:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"optim.rates: {pattern!r} is not a regular expression: {error}") from None


def part_rate(name: str, rates: Rates) -> float:
    """The factor of a parameter's learning rate: that of the first pattern that matches its name, else 1."""
    return next((factor for pattern, factor in rates if _matches(pattern, name)), 1.0)


@contextmanager
def frozen_parts(objective: Objective, rates: Rates, freeze: str | None = None) -> Iterator[None]:
    """Inside the context, parameters with a rate of zero, and those of layers to ``freeze``, require no gradient, and
    modules that have no others are in evaluation mode.

    Raises:
        UserError: a pattern matches nothing that is trained; names the nearest parts. Or there are not as many
        layers.
    """
    frozen = _frozen(objective, rates, freeze)
    if not frozen:
        yield
        return
    # Only names and modules are held meanwhile: sharding replaces parameters, and whole ones would stay in memory.
    modes = {module: module.training for module in objective.modules()}
    _set_frozen(objective, frozen)
    try:
        yield
    finally:
        for name, param in objective.named_parameters():  # by name, because sharding replaces parameters
            if name in frozen:
                param.requires_grad_(True)
        for module, mode in modes.items():
            module.training = mode


def _frozen(objective: Objective, rates: Rates, freeze: str | None) -> set[str]:
    """Names of the parameters to freeze."""
    params = dict(objective.named_parameters())
    trained = {name for name, param in params.items() if param.requires_grad}
    for pattern, factor in rates:
        _check_matches(objective, pattern, trained if factor else params.keys())
    return {name for name in trained if part_rate(name, rates) == 0} | _first_layers(objective, trained, freeze)


def _set_frozen(objective: Objective, frozen: Collection[str]) -> None:
    params = dict(objective.named_parameters())
    for name in frozen:
        params[name].requires_grad_(False)
    ours = {id(params[name]) for name in frozen}
    for module in objective.modules():
        held = list(module.parameters())
        if any(id(param) in ours for param in held) and not any(param.requires_grad for param in held):
            module.eval()


def _first_layers(objective: Objective, trained: Collection[str], freeze: str | None) -> set[str]:
    """The parameters of the layers to freeze, of those that are trained.

    Raises:
        UserError: nothing would be left to train, or the objective does not tell its layers apart.
    """
    if freeze is None:
        return set()
    layers = {name: objective.depth_of(name) for name in trained}
    head, name = max(layers.values(), default=0), type(objective).__name__
    encoder = find_encoder(objective)
    if freeze == BACKBONE and encoder is not None:
        ours = {id(param) for param in encoder.parameters()}
        return {name for name, param in objective.named_parameters() if name in trained and id(param) in ours}
    if len(set(layers.values())) < 2:
        raise UserError(
            f"optim.freeze is {freeze}, and {name} tells no layers apart: freeze parts by their names, such as "
            "--optim.rates encoder 0"
        )
    count = head if freeze == BACKBONE else int(freeze)
    if count > head:
        raise UserError(f"optim.freeze is {freeze}, and {name} has {head + 1} layers: give {head} at most")
    return {name for name, layer in layers.items() if layer < count}


def _matches(pattern: str, name: str) -> bool:
    return re.match(rf"(?:{pattern})(?:\.|$)", name) is not None


def _check_matches(objective: nn.Module, pattern: str, names: Collection[str]) -> None:
    if any(_matches(pattern, name) for name in names):
        return
    parts = [name for name, module in objective.named_modules() if name and any(True for _ in module.parameters())]
    tops = [name for name in parts if "." not in name]
    nearest = difflib.get_close_matches(pattern, [*parts, *names], n=3) or tops[:8] or sorted(names)[:8]
    raise UserError(
        f"optim.rates: {pattern!r} matches the beginning of no trained parameter's name in "
        f"{type(objective).__name__}: the nearest are {', '.join(nearest)}"
    )

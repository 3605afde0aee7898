"""Files of released weights, for any network that says in which layouts they come (:class:`protocols.Released`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from filmstrip.errors import UserError
from filmstrip.protocols import Layout, Released, find_encoder
from filmstrip.weights.files import read_weights
from filmstrip.weights.keymap import COUNTERS, Weights, check_names, fitted, renamed, without, without_prefix

_UNDER = ("model_state", "state_dict", "model", "module")
"""Keys under which files of training states hold the weights."""


def load_published(path: Path, objective: nn.Module, *, head: bool = True) -> None:
    """Copy a file of released weights into ``objective``; without ``head`` into its encoder only.

    Raises:
        UserError: the file holds none of the layouts that are known of such a network, or does not fit it: weights
            are missing, have other shapes, or have no place in it. Nothing is loaded then.
    """
    copy_published(read_weights(path), objective, path, head=head)


def copy_published(theirs: Mapping[str, Any], objective: nn.Module, source: str | Path, *, head: bool = True) -> None:
    """The same for what a file held that was read before; ``source`` names it.

    Raises:
        UserError: as :func:`load_published`.
    """
    try:
        weights = from_published(theirs, objective, head=head)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    wanted = objective.state_dict()
    for name, tensor in weights.items():
        if tensor.shape != wanted[name].shape:
            raise UserError(
                f"{source} does not fit this network: {name} is {tuple(tensor.shape)} there and "
                f"{tuple(wanted[name].shape)} here"
            )
    objective.load_state_dict(weights, strict=False)


def from_published(theirs: Mapping[str, Any], objective: nn.Module, *, head: bool = True) -> Weights:
    """Weights of ``objective`` from a released state, or from what its file holds; without ``head``, its encoder's.

    Raises:
        UserError: no layout that is known has the names that this network needs, and no others.
    """
    theirs, fits = _state_in(theirs), []
    for layout in layouts_of(objective):
        given = theirs if layout.unpack is None else layout.unpack(theirs)
        if layout.check is not None:
            layout.check(given)
        names = published_names(objective, layout.name)
        if not head:
            names = {name: key for name, key in names.items() if name.startswith("encoder.")}
        fits.append((layout, names, given))
    # The one that fits best.
    layout, names, theirs = min(fits, key=lambda fit: len(without(fit[1].values(), fit[2], fit[0].optional)))
    what = f"this is not a released {type(_network(objective)).__name__} of this size: the file"
    spare = layout.spare if head else (*layout.spare, *layout.after)
    check_names(what, theirs, names.values(), spare=spare, optional=(COUNTERS, *layout.optional))
    wanted, ours = objective.state_dict(), {}
    for name, key in names.items():
        if key in theirs:
            tensor = theirs[key] if layout.to_ours is None else layout.to_ours(name, theirs[key])
            ours[name] = fitted(tensor, wanted[name])
    return ours


def has_head(theirs: Mapping[str, Tensor], objective: nn.Module) -> bool:
    """Whether a released state holds anything of ``objective`` beside its encoder."""
    theirs = _state_in(theirs)
    for layout in layouts_of(objective):
        given = theirs if layout.unpack is None else layout.unpack(theirs)
        names = published_names(objective, layout.name).items()
        if any(key in given for name, key in names if not name.startswith("encoder.")):
            return True
    return False


def to_published(objective: nn.Module, layout: str | None = None) -> dict[str, Any]:
    """The inverse of :func:`from_published`, for a layout by its name (by default the first): what its file holds."""
    state, chosen = objective.state_dict(), _layout(objective, layout)
    theirs: Weights = {}
    for name, key in published_names(objective, layout).items():
        tensor = state[name] if chosen.to_theirs is None else chosen.to_theirs(name, state[name])
        theirs[key] = torch.cat([theirs[key], tensor]) if key in theirs else tensor
    return theirs if chosen.pack is None else dict(chosen.pack(theirs))


def published_names(objective: nn.Module, layout: str | None = None) -> dict[str, str]:
    """Ours to theirs, in a layout by its name (by default the first), but for the statistics of pixels."""
    chosen = _layout(objective, layout)
    names = without((name for name in objective.state_dict() if "normalise." not in name), (), chosen.absent)
    return {name: renamed(name, chosen.rules) for name in names}


def layouts_of(objective: nn.Module) -> tuple[Layout, ...]:
    """The layouts in which the weights of an objective's encoder, or of a bare network, were released.

    Raises:
        UserError: none is known.
    """
    network = _network(objective)
    if not isinstance(network, Released):
        raise UserError(f"{type(network).__name__} has no released layout that is known here")
    return network.layouts()


def _state_in(theirs: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in _UNDER:
        theirs = theirs.get(key, theirs)
    return without_prefix(theirs)


def _layout(objective: nn.Module, name: str | None) -> Layout:
    layouts = layouts_of(objective)
    if name is None:
        return layouts[0]
    found = [layout for layout in layouts if layout.name == name]
    if not found:
        known = ", ".join(layout.name for layout in layouts)
        raise UserError(f"{type(_network(objective)).__name__} has no layout {name!r}: there are {known}")
    return found[0]


def _network(objective: nn.Module) -> nn.Module:
    """What knows the layouts: the whole, where it says any, else its encoder."""
    if isinstance(objective, Released):
        return objective
    encoder = find_encoder(objective)
    return objective if encoder is None else encoder

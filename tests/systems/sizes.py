"""What tests of sizes share: how networks are counted, and that every preset of a group is in one of its tables."""

from collections.abc import Collection
from typing import NamedTuple

import torch

from filmstrip import systems
from filmstrip.measure import complexity
from filmstrip.protocols import find_encoder

OWN = ("small", "resnet18_k400", "r2plus1d_18", "large_own", "table", "table_pixels", "scenes")
"""Presets that no paper has, as are all whose names begin with ``tiny``."""


def unnamed(group: str, *tables: Collection[str], elsewhere: tuple[str, ...] = ()) -> set[str]:
    """Addresses of the group's presets that no table has, and that do not begin with one of ``elsewhere``.

    For each of these, the test of the group must say what size the paper gives, or where that is tested and why.
    """
    own = {name for name in systems.names() if name.startswith(f"{group}.")}
    presets = {(name, preset) for name in own for preset in systems.presets(name)}
    papers = {f"{name}:{preset}" for name, preset in presets if preset not in OWN and not preset.startswith("tiny")}
    return {address for address in papers.difference(*tables) if not address.startswith(elsewhere)}


_operations: dict[tuple[object, ...], int] = {}
"""Operations of encoding one clip, by system, shapes of the encoder's weights, and shape of the clip."""


class Size(NamedTuple):
    """What a preset's networks have and do, without weights."""

    parameters: float
    """Millions of parameters of the whole objective."""
    encoder_parameters: float
    """Millions of parameters of the encoder."""
    encoder_multiply_adds: float
    """Giga multiply-adds of encoding one clip."""


def size_of(address: str) -> Size:
    """The size of a preset that has an encoder. The loss, which takes many times as long to count, is left out."""
    run = systems.find(address)
    with torch.device("meta"), torch.no_grad():
        objective = run.objective.build()
        encoder = find_encoder(objective)
        sizes = run.data.reads.sizes(run.data, run.objective)
        video = run.data.reads.specification.blank({"B": 1, **sizes})["video"]
        weights = tuple((name, weight.shape) for name, weight in encoder.named_parameters())
        key = (address.partition(":")[0], weights, video.shape)
        if key not in _operations:  # presets that differ in their training have one encoder, which is counted once
            with complexity.flop_counter() as counter:
                encoder(video)
            _operations[key] = counter.get_total_flops()
    whole, own = (sum(p.numel() for p in module.parameters()) / 1e6 for module in (objective, encoder))
    return Size(whole, own, _operations[key] / 2e9)


def one_of_each(addresses: Collection[str]) -> list[str]:
    """The first preset of each system: the others' losses are run on as many positions, or are like theirs."""
    return list({address.split(":")[0]: address for address in reversed(list(addresses))}.values())

"""Optimisers: their configuration, the groups of parameters that they update, and the rates of every step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

from filmstrip.bounds import PositiveShare, Rate, ShareBelowOne, Weight
from filmstrip.errors import UserError
from filmstrip.protocols import Objective, Phase
from filmstrip.train.blocks import find_blocks
from filmstrip.train.part_rates import BACKBONE, Rates, check_patterns, part_rate
from filmstrip.train.phase_values import PhaseValues, value_for
from filmstrip.train.schedules import Constant, Cosine, WarmupStableDecay, half_cosine

OtherOptim = TypeVar("OtherOptim", bound="Optim")


@dataclass(frozen=True, kw_only=True)
class Optim:
    """What every optimiser has, the same for every phase."""

    lr: Rate = 1e-3
    """Peak learning rate at the configured batch size (never rescaled)."""
    weight_decay: Weight = 0.05
    """Weight decay coefficient, or the initial one if ``weight_decay_end`` is set."""
    weight_decay_end: Weight | None = None
    """Final weight decay coefficient, approached along half a cosine over all steps; none keeps it constant."""
    layer_decay: PositiveShare = 1.0
    """Factor of the learning rate per layer of distance from the output."""
    rates: Rates = ()
    """Factors of the learning rate of parts, as pairs: ``encoder 0 head 10`` freezes the encoder. A part is a regular
    expression for the beginning of a parameter's name, up to a dot or the end; the first that matches counts."""
    freeze: str | None = None
    """Layers from the input on that are not trained and stay in evaluation mode: ``backbone`` for the encoder (or all
    layers but the last, where there is none), or a number, as 9 for the embedding and the first eight blocks; none
    trains all."""
    schedule: Cosine | Constant | WarmupStableDecay = field(default_factory=Cosine)
    """Learning-rate schedule."""
    moments: ClassVar[int]
    """Maximum number of values that the optimiser keeps for each weight."""

    def __post_init__(self) -> None:
        check_patterns(self.rates)
        if self.freeze is not None and self.freeze != BACKBONE and not self.freeze.isdecimal():
            raise UserError(f"optim.freeze is {self.freeze!r}: expected {BACKBONE}, or a number of layers")

    def changed_to(self, kind: type[OtherOptim]) -> OtherOptim:
        """An optimiser of another kind with its own defaults, and this one's schedule and factors; or this one."""
        if isinstance(self, kind):
            return self
        return kind(layer_decay=self.layer_decay, rates=self.rates, freeze=self.freeze, schedule=self.schedule)

    def build(self, objective: Objective, phase: Phase, *, sharded: bool = False) -> Optimizer:
        """The optimiser of one phase, without frozen parameters, which may be ``sharded`` over processes.

        Its groups have, beside what torch's optimisers know, ``peak_lr`` and ``decay_factor``, for :func:`set_rates`.

        Raises:
            UserError: all parameters of the phase are frozen.
        """
        raise TypeError(f"{type(self).__name__} does not define build()")

    def weight_decay_at(self, step: int, total: int) -> float:
        """The weight decay coefficient of a step, counted from zero."""
        if self.weight_decay_end is None:
            return self.weight_decay
        return half_cosine(self.weight_decay, self.weight_decay_end, step / total)


@dataclass(frozen=True, kw_only=True)
class AdamW(Optim):
    """AdamW (Loshchilov and Hutter 2019). ``--optim sgd`` or ``muon`` chooses another optimiser, with its own
    defaults and this one's schedule, ``layer_decay`` and ``rates``."""

    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
    """Decay rates of the moving averages of the gradient and of its square."""
    eps: Rate = 1e-8
    """Number added to the denominator."""
    phase_eps: PhaseValues = ()
    """Such numbers of phases that have another one, as pairs: ``actor 1e-5 critic 1e-5``."""
    moments = 2

    def build(self, objective: Objective, phase: Phase, *, sharded: bool = False) -> Optimizer:
        """The optimiser of one phase; see :meth:`Optim.build`."""
        eps = value_for(phase.name, self.phase_eps, objective, "optim.phase_eps") or self.eps
        return _adamw(_options(_groups(objective, phase, self), self.lr, self.weight_decay), self.betas, eps)


@dataclass(frozen=True, kw_only=True)
class SGD(Optim):
    """Stochastic gradient descent with momentum. ``--optim adamw`` or ``muon`` chooses another optimiser, with its
    own defaults and this one's schedule, ``layer_decay`` and ``rates``."""

    lr: Rate = 1e-2
    """Peak learning rate at the configured batch size (never rescaled)."""
    weight_decay: Weight = 0.0
    """Coefficient of a penalty on squared weights, or the initial one if ``weight_decay_end`` is set."""
    momentum: ShareBelowOne = 0.9
    """Momentum; zero for none."""
    nesterov: bool = True
    """Whether the momentum is Nesterov's."""
    moments = 1

    def build(self, objective: Objective, phase: Phase, *, sharded: bool = False) -> Optimizer:
        """The optimiser of one phase; see :meth:`Optim.build`."""
        options = _options(_of_one_rate(_groups(objective, phase, self), "sgd"), self.lr, self.weight_decay)
        nesterov = self.nesterov and self.momentum > 0
        # torch has no fused SGD of sharded tensors.
        return torch.optim.SGD(options, momentum=self.momentum, nesterov=nesterov, fused=not sharded)


@dataclass(frozen=True, kw_only=True)
class Muon(Optim):
    """Muon (Jordan et al. 2024) for the weights of linear layers in the network's blocks, AdamW for all others
    (embeddings, norms, biases, heads). ``--optim adamw`` or ``sgd`` chooses another optimiser, with its own defaults
    and this one's schedule, ``layer_decay`` and ``rates``."""

    lr: Rate = 0.02
    """Peak learning rate of Muon at the configured batch size (never rescaled)."""
    momentum: ShareBelowOne = 0.95
    """Momentum of Muon."""
    nesterov: bool = True
    """Whether the momentum is Nesterov's."""
    adjust_lr: Literal["original", "match_rms_adamw"] = "original"
    """Adjustment of Muon's learning rate to a matrix's shape: ``original`` by the square root of its rows over its
    columns, at least 1; ``match_rms_adamw`` to updates as large as AdamW's, with whose learning rates it goes."""
    adamw_lr: Rate = 3e-4
    """Peak learning rate of AdamW."""
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.95)
    """AdamW's decay rates of the moving averages of the gradient and of its square."""
    eps: Rate = 1e-8
    """Number added to the denominator of AdamW."""
    moments = 2

    def build(self, objective: Objective, phase: Phase, *, sharded: bool = False) -> Optimizer:
        """The optimiser of one phase; see :meth:`Optim.build`.

        Raises:
            UserError: the phase has no linear layer in a block that is not frozen.
        """
        layers = [layer for block in find_blocks(objective) for layer in block.modules()]
        hidden = {id(layer.weight) for layer in layers if isinstance(layer, nn.Linear)}
        groups = _of_one_rate(_groups(objective, phase, self), "muon")
        matrices = _part_of(groups, lambda param: id(param) in hidden)
        others = _part_of(groups, lambda param: id(param) not in hidden)
        if not matrices:
            raise UserError(
                f"Muon updates linear layers in the blocks of a network (an nn.ModuleList named 'blocks'), and "
                f"{type(objective).__name__} trains none in phase {phase.name!r}: use --optim adamw"
            )
        muon = torch.optim.Muon(
            _options(matrices, self.lr, self.weight_decay),
            momentum=self.momentum,
            nesterov=self.nesterov,
            adjust_lr_fn=self.adjust_lr,
        )
        if not others:
            return _Joint([muon])
        return _Joint([muon, _adamw(_options(others, self.adamw_lr, self.weight_decay), self.betas, self.eps)])


OPTIMISERS: dict[str, type[AdamW | SGD | Muon]] = {"adamw": AdamW, "sgd": SGD, "muon": Muon}
"""The optimisers, by their names on the command line."""


def set_rates(optimisers: Iterable[Optimizer], optim: Optim, step: int, total: int) -> float:
    """Set every group's learning rate and weight decay for a step, counted from zero; returns the share of the peak
    that the learning rates have."""
    factor, decay = optim.schedule.factor(step, total), optim.weight_decay_at(step, total)
    for one in optimisers:
        for group in one.param_groups:
            group["lr"] = group["peak_lr"] * factor
            group["weight_decay"] = decay * group["decay_factor"]
    return factor


class _Group(NamedTuple):
    """Parameters with their names, and what their rates are multiplied by."""

    named: tuple[tuple[str, nn.Parameter], ...]
    scale: float
    decay: float
    by_width: float = 1.0
    """The part of the scale that the network's width asks for."""


def _groups(objective: Objective, phase: Phase, optim: Optim) -> list[_Group]:
    """The parameters of a phase by rate: ``layer_decay ** (max_depth - depth)``, within the phase, by part and width.

    Where the width lowers a rate (muP), weight decay is as much higher, as in the authors' ``mup``: a step takes the
    rate times the decay from a weight, which then is the same for every width.
    """
    found = objective.param_groups(phase)
    if not found:
        raise UserError(
            f"{type(objective).__name__} has nothing to train in phase {phase.name!r}: all its parameters are frozen"
        )
    deepest = max(group.depth for group in found)
    groups = []
    for group in found:
        parts: dict[float, list[tuple[str, nn.Parameter]]] = {}
        for name, param in zip(group.names, group.params):
            parts.setdefault(part_rate(name, optim.rates), []).append((name, param))
        scale = optim.layer_decay ** (deepest - group.depth)
        decay = 1 / group.rate if group.decay else 0.0
        groups += [
            _Group(tuple(named), scale * factor * group.rate, decay, group.rate) for factor, named in parts.items()
        ]
    return groups


def _of_one_rate(groups: list[_Group], name: str) -> list[_Group]:
    """The same groups, for optimisers whose rates follow the width by other rules than AdamW's.

    Raises:
        UserError: a group's rate depends on the network's width.
    """
    if any(group.by_width != 1 for group in groups):
        raise UserError(
            f"muP's learning rates (objective.base_width) are those of AdamW, and the optimiser is {name}: use "
            "--optim adamw, or the standard parametrisation (--objective.base-width None)"
        )
    return groups


def _part_of(groups: list[_Group], wanted: Callable[[nn.Parameter], bool]) -> list[_Group]:
    parts = [group._replace(named=tuple(item for item in group.named if wanted(item[1]))) for group in groups]
    return [part for part in parts if part.named]


def _options(groups: list[_Group], lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """The groups as torch's optimisers take them."""
    return [
        {
            "params": list(group.named),
            "lr": lr * group.scale,
            "peak_lr": lr * group.scale,
            "weight_decay": weight_decay * group.decay,
            "decay_factor": group.decay,
        }
        for group in groups
    ]


def _adamw(options: list[dict[str, Any]], betas: tuple[float, float], eps: float) -> Optimizer:
    return torch.optim.AdamW(options, betas=betas, eps=eps, fused=True)


class _Joint(Optimizer):
    """Several optimisers as one: their groups and their state together."""

    def __init__(self, parts: list[Optimizer]) -> None:
        super().__init__([param for part in parts for group in part.param_groups for param in group["params"]], {})
        self._parts = parts
        self.param_groups = [group for part in parts for group in part.param_groups]
        for part in parts:
            part.state = self.state

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # none here calls a closure
        """One step of each."""
        for part in self._parts:
            part.step()

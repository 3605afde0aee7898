"""Schedules: the share of its peak that a learning rate has at each step."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, TypeVar

from filmstrip.bounds import Share
from filmstrip.train.lengths import Span, span_steps


def half_cosine(begin: float, end: float, progress: float) -> float:
    """A value that moves from ``begin`` to ``end`` along half a cosine, at ``progress`` from 0 to 1."""
    return end + (begin - end) * (1 + math.cos(math.pi * progress)) / 2


OtherSchedule = TypeVar("OtherSchedule", bound="Schedule")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A linear warm-up, and what subclasses define after it: a pure function of the step and the number of steps."""

    warmup: Span = 0.05
    """Length of the warm-up, in which the learning rate rises linearly from ``start``: a share of all steps (0.05) or
    a number of steps (2000)."""
    start: Share = 0.0
    """Initial learning rate of the warm-up, as a share of the peak."""

    def factor(self, step: int, total: int) -> float:
        """The learning rate of a step (counted from zero) as a share of its peak, which the last step of the warm-up
        has."""
        warmup = span_steps(self.warmup, total)
        if step < warmup:
            return self.start + (1 - self.start) * (step + 1) / warmup
        return self._after_warmup(step, warmup, total)

    def changed_to(self, kind: type[OtherSchedule]) -> OtherSchedule:
        """A schedule of another kind, with the settings that both have."""
        shared = {field.name for field in fields(self)} & {field.name for field in fields(kind)}
        return kind(**{name: getattr(self, name) for name in shared})

    def _after_warmup(self, step: int, warmup: int, total: int) -> float:
        """The share of the peak at a step that is not before ``warmup``, the first one after the warm-up."""
        raise TypeError(f"{type(self).__name__} does not define _after_warmup()")


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Half a cosine after the warm-up (Loshchilov and Hutter 2017). ``--optim.schedule constant`` or
    ``warmup-stable-decay`` chooses another schedule, which keeps the settings that both have."""

    final: Share = 0.0
    """Final learning rate, as a share of the peak; it would be reached one step after the last."""

    def _after_warmup(self, step: int, warmup: int, total: int) -> float:
        return half_cosine(1.0, self.final, (step - warmup) / max(total - warmup, 1))


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The peak learning rate after the warm-up. ``--optim.schedule cosine`` or ``warmup-stable-decay`` chooses
    another schedule, which keeps the settings that both have."""

    warmup: Span = 0.0
    """Length of the warm-up, in which the learning rate rises linearly from ``start``: a share of all steps (0.05) or
    a number of steps (2000)."""

    def _after_warmup(self, step: int, warmup: int, total: int) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class WarmupStableDecay(Schedule):
    """The peak learning rate after the warm-up, and a decay at the end (Hu et al. 2024, Hägele et al. 2024).
    ``--optim.schedule cosine`` or ``constant`` chooses another schedule, which keeps the settings that both have."""

    decay: Span = 0.2
    """Length of the decay (cooldown) at the end: a share of all steps (0.2) or a number of steps (2000); what the
    warm-up leaves, if that is less."""
    final: Share = 0.0
    """Final learning rate, as a share of the peak; it would be reached one step after the last."""
    shape: Literal["linear", "sqrt"] = "linear"
    """Shape of the decay: ``linear``, or ``sqrt`` for one minus the square root of the progress, steep at first."""

    def _after_warmup(self, step: int, warmup: int, total: int) -> float:
        begin = max(warmup, total - span_steps(self.decay, total))
        progress = max(step - begin, 0) / max(total - begin, 1)
        return 1 - (1 - self.final) * (math.sqrt(progress) if self.shape == "sqrt" else progress)


SCHEDULES: dict[str, type[Cosine | Constant | WarmupStableDecay]] = {
    "cosine": Cosine,
    "constant": Constant,
    "warmup-stable-decay": WarmupStableDecay,
}
"""The schedules, by their names on the command line."""

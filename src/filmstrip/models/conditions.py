"""Classes and actions as inputs of networks: one vector for a whole clip, or channels of every frame.

Both begin with :class:`Known`, which says what fits. A vector suits a network that sees all of a clip at once; it
holds every action, and needs all that it was made for. Channels suit one that goes on frame by frame: any number of
frames, and what is not given has an embedding of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor, nn

from filmstrip.errors import UserError
from filmstrip.protocols import Condition


@dataclass(frozen=True, kw_only=True)
class Known:
    """The classes and actions that condition a model.

    Actions are discrete (``num_actions``) or vectors (``action_dim``).
    """

    num_classes: int = 0
    """Number of classes; zero without them."""
    num_actions: int = 0
    """Number of discrete actions; zero without them."""
    action_dim: int = 0
    """Values of a continuous action; zero without them."""

    @property
    def has_action(self) -> bool:
        """Whether actions condition the model."""
        return bool(self.num_actions or self.action_dim)

    def check_shapes(self, batch: int, num_frames: int, *, label: Tensor | None, action: Tensor | None) -> None:
        """Refuse labels that are not ``B`` whole numbers, and actions that are not ``B T`` of them or ``B T A``.

        It looks at no values, so that nothing waits for a device.

        Raises:
            UserError: says what is needed.
        """
        if label is not None and (label.shape != (batch,) or label.is_floating_point()):
            raise UserError(
                f"labels are {batch} class numbers, one for each clip, of shape {(batch,)}: not {label.dtype} of "
                f"shape {tuple(label.shape)}"
            )
        if action is None:
            return
        wanted = (batch, num_frames) if self.num_actions else (batch, num_frames, self.action_dim)
        if action.shape != wanted or action.is_floating_point() == bool(self.num_actions):
            kind = f"whole numbers below {self.num_actions}" if self.num_actions else f"{self.action_dim} values"
            raise UserError(
                f"actions are {kind} for each of {num_frames} frames of {batch} clips: actions of shape {wanted} are "
                f"needed, not {action.dtype} of shape {tuple(action.shape)}"
            )

    def check(self, condition: Condition, *, needed: bool) -> None:
        """Refuse what a sample cannot be asked for; with ``needed``, also where something is missing.

        Raises:
            UserError: says which.
        """
        for name, given, count, hint in (
            (
                "labels",
                condition.label,
                self.num_classes,
                "name a class (--condition CLASS; evaluations: --class-conditional)",
            ),
            ("actions", condition.action, self.has_action, "one for each frame (--condition FILE)"),
        ):
            if given is not None and not count:
                raise UserError(f"this model knows no {name}: leave them out of the condition")
            if needed and given is None and count:
                raise UserError(f"this model needs {name}, which it was always given in training: {hint}")
        size = condition.batch_size, condition.num_frames
        self.check_shapes(*size, label=condition.label, action=condition.action)
        for name, given, count in (
            ("labels", condition.label, self.num_classes),
            ("actions", condition.action, self.num_actions),
        ):
            if given is not None and count and not 0 <= given.min() <= given.max() < count:
                raise UserError(f"{name} are numbers below {count}; {given.min()}..{given.max()} were given")


class ClipVector:
    """A class and the actions that lead to every frame but the first, one-hot or as they are, side by side."""

    def __init__(self, known: Known, num_frames: int) -> None:
        self.known = known
        self.num_frames = num_frames
        self.width = known.num_classes + (num_frames - 1) * (known.num_actions or known.action_dim)

    def __call__(self, label: Tensor | None, action: Tensor | None) -> Tensor | None:
        """``B C`` float32 of labels ``B`` (or shares ``B K``) and actions ``B T`` or ``B T A``; none if empty."""
        parts, known = [], self.known
        if known.num_classes:
            parts.append(label if label.ndim == 2 else F.one_hot(label, known.num_classes))
        if known.has_action:
            rows = action[:, 1:]
            parts.append((F.one_hot(rows, known.num_actions) if known.num_actions else rows).flatten(1))
        return torch.cat([part.float() for part in parts], dim=1) if parts else None

    def check(self, condition: Condition, *, optional: bool) -> None:
        """Refuse labels and actions that do not fit or are not known; or are missing, unless all are and may be.

        Raises:
            UserError: says which.
        """
        nothing = condition.label is None and condition.action is None
        self.known.check(condition, needed=not (optional and nothing))
        if condition.action is not None and condition.num_frames != self.num_frames:
            raise UserError(f"this model sees the actions of whole clips: ask for all {self.num_frames} frames")


class FrameConditions(nn.Module):
    """Embeds a clip's class and each frame's action; either may be unknown, which has an embedding of its own.

    The action of the first frame led to it from outside the clip: it counts as unknown. ``width`` is the number of
    channels that come out.
    """

    def __init__(self, known: Known, *, label_width: int, action_width: int) -> None:
        super().__init__()
        self.known = known
        self.label = nn.Embedding(known.num_classes + 1, label_width) if known.num_classes else None
        self.action = nn.Embedding(known.num_actions, action_width) if known.num_actions else None
        if known.action_dim:
            self.action = nn.Linear(known.action_dim, action_width)
        self.no_action = nn.Parameter(torch.randn(action_width)) if known.has_action else None
        self.width = label_width * bool(known.num_classes) + action_width * known.has_action

    def forward(
        self,
        batch: int,
        num_frames: int,
        *,
        label: Tensor | None,
        action: Tensor | None,
        unknown: Tensor | None = None,
    ) -> Tensor | None:
        """``B T width``, or nothing without conditions; where ``unknown`` (``B``) is true, a clip's are masked.

        Raises:
            UserError: a label or an action does not fit, or there are no actions for some frames.
        """
        label = None if self.label is None else label
        action = None if self.action is None else action
        self.known.check_shapes(batch, num_frames, label=label, action=action)
        parts = []
        if self.label is not None:
            parts.append(repeat(self._embedded_label(batch, label, unknown), "b d -> b t d", t=num_frames))
        if self.action is not None:
            parts.append(self._embedded_action(batch, num_frames, action, unknown))
        return torch.cat(parts, dim=2) if parts else None

    def _embedded_label(self, batch: int, label: Tensor | None, unknown: Tensor | None) -> Tensor:
        none = torch.full((batch,), self.known.num_classes, device=self.label.weight.device)
        if label is None:
            return self.label(none)
        return self.label(label if unknown is None else torch.where(unknown, none, label))

    def _embedded_action(self, batch: int, num_frames: int, action: Tensor | None, unknown: Tensor | None) -> Tensor:
        none = self.no_action.expand(batch, num_frames, -1)
        if action is None:
            return none
        masked = torch.zeros(batch, num_frames, 1, dtype=torch.bool, device=action.device)
        masked[:, 0] = True
        if unknown is not None:
            masked = masked | unknown[:, None, None]
        return torch.where(masked, none, self.action(action))

    def check(self, condition: Condition, *, optional: bool) -> None:
        """Refuse labels and actions that do not fit or are not known, or, unless they are optional, missing.

        Raises:
            UserError: says which.
        """
        self.known.check(condition, needed=not optional)

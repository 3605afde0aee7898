"""Labels and actions as channels of every frame."""

from __future__ import annotations

import torch
from einops import repeat
from torch import Tensor, nn

from filmstrip.errors import UserError
from filmstrip.protocols import Condition


class FrameConditions(nn.Module):
    """Embeds a clip's class and each frame's action; either may be unknown, which has an embedding of its own.

    The action of the first frame led to it from outside the clip: it counts as unknown. ``width`` is the number of
    channels that come out.
    """

    def __init__(self, *, label_width: int, action_width: int, num_classes: int, num_actions: int, action_dim: int):
        super().__init__()
        self.num_classes, self.num_actions, self.action_dim = num_classes, num_actions, action_dim
        self.has_action = bool(num_actions or action_dim)
        self.label = nn.Embedding(num_classes + 1, label_width) if num_classes else None
        self.action = nn.Embedding(num_actions, action_width) if num_actions else None
        if action_dim:
            self.action = nn.Linear(action_dim, action_width)
        self.no_action = nn.Parameter(torch.randn(action_width)) if self.has_action else None
        self.width = label_width * bool(num_classes) + action_width * self.has_action

    def forward(
        self,
        batch: int,
        num_frames: int,
        *,
        label: Tensor | None,
        action: Tensor | None,
        unknown: Tensor | None = None,
    ) -> Tensor | None:
        """``B T width``, or nothing where the model has no conditions; ``unknown`` (``B``, True) hides a clip's.

        Raises:
            UserError: a label or an action does not fit, or there are no actions for some frames.
        """
        parts = []
        if self.label is not None:
            parts.append(repeat(self._embedded_label(batch, label, unknown), "b d -> b t d", t=num_frames))
        if self.has_action:
            parts.append(self._embedded_action(batch, num_frames, action, unknown))
        return torch.cat(parts, dim=2) if parts else None

    def _embedded_label(self, batch: int, label: Tensor | None, unknown: Tensor | None) -> Tensor:
        none = torch.full((batch,), self.num_classes, device=self.label.weight.device)
        if label is None:
            return self.label(none)
        if label.shape != (batch,) or label.is_floating_point():
            raise UserError(f"labels are {batch} class numbers, one for each clip, not {tuple(label.shape)}")
        return self.label(label if unknown is None else torch.where(unknown, none, label))

    def _embedded_action(self, batch: int, num_frames: int, action: Tensor | None, unknown: Tensor | None) -> Tensor:
        none = self.no_action.expand(batch, num_frames, -1)
        if action is None:
            return none
        wanted = (batch, num_frames) if self.num_actions else (batch, num_frames, self.action_dim)
        if action.shape != wanted or action.is_floating_point() == bool(self.num_actions):
            kind = f"numbers below {self.num_actions}" if self.num_actions else f"{self.action_dim} values"
            raise UserError(
                f"actions are {kind} for each of {num_frames} frames of {batch} clips, shape {wanted}; "
                f"got {action.dtype} of shape {tuple(action.shape)}"
            )
        hidden = torch.zeros(batch, num_frames, 1, dtype=torch.bool, device=action.device)
        hidden[:, 0] = True
        if unknown is not None:
            hidden = hidden | unknown[:, None, None]
        return torch.where(hidden, none, self.action(action))

    def check(self, condition: Condition) -> None:
        """Refuse labels and actions that the model does not have.

        Raises:
            UserError: says which.
        """
        for name, given, count in (
            ("labels", condition.label, self.num_classes),
            ("actions", condition.action, self.num_actions or self.action_dim),
        ):
            if given is None:
                continue
            if not count:
                raise UserError(f"this model knows no {name}: leave them out of the condition")
            if not given.is_floating_point() and not 0 <= given.min() <= given.max() < count:
                raise UserError(f"{name} are numbers below {count}; {given.min()}..{given.max()} were given")

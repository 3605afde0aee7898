"""What a whole clip is conditioned on: its class and actions as one vector, its first frames as tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.errors import UserError
from filmstrip.models.resnet import BasicBlock
from filmstrip.nn.conv import Conv2Plus1D, matching_channels
from filmstrip.protocols import Condition, as_float


class FirstFrames(nn.Module):
    """The features of a clip's first frames, at a quarter of their size, by a (2+1)D residual network.

    The second and third stage halve the grid, in time too; positions are learnt.
    """

    def __init__(self, num_frames: int, size: int, *, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.width = widths[-1]
        layers: list[nn.Module] = [
            Conv2Plus1D(3, widths[0], middle=matching_channels(3, widths[0])),
            nn.BatchNorm3d(widths[0]),
            nn.ReLU(inplace=True),
        ]
        inputs = widths[0]
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            for i in range(depth):
                stride = 2 if i == 0 and stage in (1, 2) else 1
                layers.append(BasicBlock("2plus1d", inputs, width, stride))
                inputs = width
        self.network = nn.Sequential(*layers)
        places = -(-num_frames // 4) * (-(-size // 4)) ** 2
        self.pos_embed = nn.Parameter(torch.randn(places, self.width) * 0.02)

    def forward(self, video: Tensor) -> Tensor:
        """Tokens ``B M D`` of the first ``num_frames`` of ``B T C H W`` video."""
        first = rearrange(as_float(video[:, : self.num_frames]) - 0.5, "b t c h w -> b c t h w")
        x = self.network(first.contiguous(memory_format=torch.channels_last_3d))
        return rearrange(x, "b d t h w -> b (t h w) d") + self.pos_embed


class ClipVector:
    """A class and the actions that lead to every frame but the first, one-hot or as they are, side by side.

    What a clip has none of is zero: ``num_classes``, ``num_actions`` (discrete) or ``action_dim`` (continuous).
    """

    def __init__(self, *, num_frames: int, num_classes: int = 0, num_actions: int = 0, action_dim: int = 0) -> None:
        self.num_frames = num_frames
        self.num_classes, self.num_actions, self.action_dim = num_classes, num_actions, action_dim
        self.has_action = bool(num_actions or action_dim)
        self.width = num_classes + (num_frames - 1) * (num_actions or action_dim)

    def __call__(self, label: Tensor | None, action: Tensor | None) -> Tensor | None:
        """``B C`` float32 of labels ``B`` (or shares ``B K``) and actions ``B T`` or ``B T A``; none if empty."""
        parts = []
        if self.num_classes:
            parts.append(label if label.ndim == 2 else F.one_hot(label, self.num_classes))
        if self.has_action:
            rows = action[:, 1:]
            parts.append((F.one_hot(rows, self.num_actions) if self.num_actions else rows).flatten(1))
        return torch.cat([part.float() for part in parts], dim=1) if parts else None

    def check(self, condition: Condition) -> None:
        """Refuse labels and actions that are missing, do not fit, or are not known.

        Raises:
            UserError: says which.
        """
        batch, frames = condition.batch_size, condition.num_frames
        for name, given, wanted in (
            ("labels", condition.label, self.num_classes),
            ("actions", condition.action, self.has_action),
        ):
            if (given is not None) != bool(wanted):
                raise UserError(f"this model {'needs' if wanted else 'knows no'} {name}")
        if self.num_classes:
            _check_numbers("labels", condition.label, (batch,), self.num_classes)
        if self.has_action and frames != self.num_frames:
            raise UserError(f"this model sees the actions of whole clips: ask for all {self.num_frames} frames")
        if self.num_actions:
            _check_numbers("actions", condition.action, (batch, frames), self.num_actions)
        elif self.has_action and condition.action.shape != (batch, frames, self.action_dim):
            wanted = (batch, frames, self.action_dim)
            raise UserError(f"actions of shape {wanted} are needed, not {tuple(condition.action.shape)}")


def _check_numbers(name: str, ids: Tensor, shape: tuple[int, ...], count: int) -> None:
    if ids.shape != shape or ids.is_floating_point():
        raise UserError(f"{name} are whole numbers of shape {shape}, not {ids.dtype} of shape {tuple(ids.shape)}")
    low, high = ids.min().item(), ids.max().item()
    if low < 0 or high >= count:
        raise UserError(f"{name} are numbers below {count}; {low}..{high} were given")

"""How frames are rewarded by a video model: settings alone, which need no network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from filmstrip.bounds import AnyNumber, Ascending, Count, Seed, check_numbers
from filmstrip.errors import UserError


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """How the frames of an episode are rewarded by a video model."""

    kind: Literal["conditional", "joint"] = "conditional"
    """Likelihood. ``conditional``: of a frame given those before it, as the text has it; ``joint``: of the whole
    window that it ends, as the published code; while there are fewer frames, their mean in place of each."""
    window: Count | None = None
    """Number of frames in a window, the last of which is rewarded; 1 for frames without a past. By default as many as
    the model was trained on."""
    skip: Count | None = None
    """Number of frames from one frame of a window to the next; by default that of the model's own clips."""
    stride: Count = 1
    """Number of frames after which a window begins anew: with more than one, contexts are up to that much shorter,
    and the cost falls almost as much (``conditional`` only)."""
    unit: Literal["code", "frame"] = "code"
    """Unit: nats for each code of a frame (of the window, if ``joint``), or for all of them."""
    range: Annotated[tuple[AnyNumber, AnyNumber], Ascending] | None = None
    """Rewards that become 0 and 1; what lies outside is clipped. By default rewards stay as they are, below zero, so
    that an episode which ends early loses less."""
    label: str | None = None
    """Class of the videos that the likelihood is of, for models with classes as conditions."""
    seed: Seed = 0
    """Seed of the order in which MaskGIT reveals codes."""
    batch_size: Count = 64
    """Number of windows in one pass of the model."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.kind == "joint" and self.stride > 1:
            raise UserError("a joint likelihood is that of a window for each frame: leave reward.stride at 1")

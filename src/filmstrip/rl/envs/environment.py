"""An environment as agents see it: square pictures of one size, actions from -1 to 1 or numbered, and true
rewards."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces

from filmstrip.bounds import Count, EvenSize, check_numbers
from filmstrip.data.actions import ActionSpace
from filmstrip.errors import UserError
from filmstrip.rl.envs.names import named
from filmstrip.rl.envs.own import Action, OwnEnvironment

log = logging.getLogger(__name__)

MAX_CRASHES = 20
"""Crashes of an environment after which it is given up."""


class Step(NamedTuple):
    """What an environment answers to an action."""

    frame: np.ndarray
    """Picture, ``3 H W`` uint8."""
    reward: float
    """True reward, summed over repeated actions."""
    terminal: bool
    """Whether it is over for good: nothing is earned afterwards."""
    cut: bool
    """Whether it is cut off here, by a time limit or a crash, though it would go on."""

    @property
    def last(self) -> bool:
        """Whether another episode comes."""
        return self.terminal or self.cut


@dataclass(frozen=True, kw_only=True)
class EnvironmentConfig:
    """An environment by name, and how agents see it."""

    name: str = "point"
    """Name: point, orbit, reach/TASK/LOOK, pick/TASK/LOOK, pong or push; an id of Gymnasium (ALE/Pong-v5,
    MiniGrid-Empty-8x8-v0); dm_control/DOMAIN-TASK; or module:Class of your own, which is imported only where it is
    typed."""
    size: EvenSize = 32
    """Height and width of pictures, pixels."""
    action_repeat: Count = 1
    """Number of the environment's own steps that one action lasts. Of Atari games the brighter one of the last two
    pictures counts, pixel by pixel."""
    max_steps: Count | None = None
    """Largest number of actions in an episode; by default the environment's own limit."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def build(self, import_module: Callable[[str], Any] | None = None) -> Environment:
        """Make it; ``import_module`` imports a person's own code.

        Raises:
            UserError: there is no such environment, or it has no pictures, or actions that agents cannot give.
        """
        return Environment(self, named(self.name, size=self.size, import_module=import_module))


class Environment:
    """An environment of Gymnasium, with :class:`Step` as its answers.

    Continuous actions of any finite range are scaled to -1..1. One that raises an exception is begun anew, the
    episode cut off; after 20 such crashes it is given up.

    Raises:
        UserError: it gives no pictures, or its actions are neither numbered nor a vector with bounds.
    """

    def __init__(self, config: EnvironmentConfig, env: gymnasium.Env[Any, Any]) -> None:
        self.config, self.env = config, env
        self.actions, self._scale = _actions_of(config.name, env.action_space)
        self._pools = config.name.startswith("ALE/")
        self._taken = 0
        self._frame: np.ndarray | None = None
        self.crashes = 0

    @property
    def own(self) -> OwnEnvironment | None:
        """The environment itself where it is one of this package, with an expert and a state."""
        return self.env if isinstance(self.env, OwnEnvironment) else None

    def reset(self, seed: int) -> np.ndarray:
        """Begin an episode that depends on ``seed``; its first picture, ``3 H W`` uint8."""
        try:
            observation, _ = self.env.reset(seed=seed % 2**31)
            self._frame = self._picture(observation)
        except (gymnasium.error.Error, ImportError) as error:  # what draws is often a package of its own
            raise UserError(f"{self.config.name} does not begin: {type(error).__name__}: {error}") from error
        self._taken = 0
        return self._frame

    def step(self, action: Action) -> Step:
        """Take an action: ``A`` numbers from -1 to 1, or a number.

        Raises:
            UserError: it crashed too often.
        """
        given = int(action) if self._scale is None else self._scale(np.asarray(action, np.float64))
        reward, terminal, cut, before = 0.0, False, False, None
        try:
            for left in reversed(range(self.config.action_repeat)):
                observation, value, terminal, cut, info = self.env.step(given)
                reward += float(info.get("true_reward", value))
                if self._pools and left == 1:
                    before = np.array(self.env.render())
                if terminal or cut:
                    break
            frame = self._picture(observation, before)
        except UserError:
            raise
        except Exception as error:  # simulators raise what they like; training is not to die of one bad episode
            self.crashes += 1
            log.warning("%s crashed (%s: %s) and is begun anew", self.config.name, type(error).__name__, error)
            if self.crashes >= MAX_CRASHES:
                raise UserError(
                    f"{self.config.name} crashed {self.crashes} times, at last with {type(error).__name__}: {error}"
                ) from error
            assert self._frame is not None, "it was begun"
            return Step(self._frame, 0.0, False, True)
        self._taken += 1
        self._frame = frame
        limit = self.config.max_steps is not None and self._taken >= self.config.max_steps
        return Step(frame, reward, bool(terminal), bool(cut or (limit and not terminal)))

    def close(self) -> None:
        """Free what it holds."""
        self.env.close()

    def state_dict(self) -> dict[str, Any] | None:
        """All that decides how it goes on, as JSON values; none of an environment that cannot say."""
        if self.own is None:
            return None
        return {**self.own.state_dict(), "taken": self._taken, "crashes": self.crashes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""
        assert self.own is not None, "others have no state"
        self.own.load_state_dict(state)
        self._taken, self.crashes = int(state["taken"]), int(state["crashes"])
        self._frame = self._picture(self.own.render())

    def _picture(self, observation: Any, before: np.ndarray | None = None) -> np.ndarray:
        size = self.config.size
        picture = observation if self.own is not None else np.asarray(self.env.render())
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise UserError(
                f"{self.config.name} gives pictures {picture.shape} {picture.dtype}, and H x W x 3 uint8 are "
                "expected (render_mode rgb_array)"
            )
        if before is not None:
            picture = np.maximum(picture, before)
        if picture.shape[:2] != (size, size):
            smooth = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()
            shrunk = F.interpolate(smooth, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
            return shrunk[0].round().clamp(0, 255).byte().numpy()
        return np.ascontiguousarray(picture.transpose(2, 0, 1))


def _actions_of(name: str, space: spaces.Space[Any]) -> tuple[ActionSpace, Callable[[np.ndarray], Any] | None]:
    """The actions that agents give, and how the environment's own are made of vectors."""
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        if start:
            raise UserError(f"actions of {name} are numbered from {start} on, and from 0 is expected")
        return ActionSpace(num_actions=int(space.n)), None
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and np.isfinite([space.low, space.high]).all():
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        kind = space.dtype

        def scaled(action: np.ndarray) -> np.ndarray:
            return (low + (np.clip(action, -1, 1) + 1) / 2 * (high - low)).astype(kind)

        return ActionSpace(action_dim=int(space.shape[0])), scaled
    raise UserError(
        f"actions of {name} are {space}: agents here give one of several (Discrete) or a vector with bounds (Box)"
    )

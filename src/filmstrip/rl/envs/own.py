"""What the environments of this package have in common: pictures, seeds, saved state, and an expert."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from filmstrip.errors import UserError
from filmstrip.rl.envs.painting import Canvas

Action = Any
"""Numbers ``A`` from -1 to 1, or the number of a discrete action."""


class OwnEnvironment(gymnasium.Env[np.ndarray, Any]):
    """An environment of Gymnasium whose observations are pictures ``H W 3`` uint8, drawn in numpy.

    ``step`` returns a reward of zero: the true one is in ``info["true_reward"]``, so that no agent learns from it
    unless it is told to. The whole state is a vector of numbers beside a generator of random numbers, so that an
    episode can be left and entered anywhere (:meth:`state_dict`).
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}  # type: ignore[misc]
    steps: ClassVar[int] = 50
    """Steps of an episode, after which it is cut off; that is no terminal state."""
    action_dim: ClassVar[int] = 2
    """Numbers of an action; zero for discrete ones."""
    num_actions: ClassVar[int] = 0
    """Number of discrete actions."""
    still: ClassVar[int] = 0
    """The discrete action that does nothing."""
    scoreboard: ClassVar[tuple[float, float, float, float] | None] = None
    """Part of the picture that shows a score: left, top, right, bottom, in its sides."""

    def __init__(self, size: int = 32, render_mode: str | None = "rgb_array") -> None:
        if size < 16:
            raise UserError(f"pictures of {size} x {size} pixels are too small to see anything: give 16 or more")
        self.size, self.render_mode = size, render_mode
        self.observation_space = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = (
            spaces.Box(-1.0, 1.0, (self.action_dim,), np.float32)
            if self.action_dim
            else spaces.Discrete(self.num_actions)
        )
        self.canvas = self.background(size)
        self.state = np.zeros(0)
        self.elapsed = 0

    def background(self, size: int) -> Canvas:
        """What does not change."""
        return Canvas(size, (24, 26, 34))

    def begin(self, rng: np.random.Generator) -> np.ndarray:
        """The state at the start of an episode."""
        raise TypeError(f"{type(self).__name__} does not define begin()")

    def move(self, action: Action, rng: np.random.Generator) -> tuple[float, bool]:
        """Change the state; returns the true reward, and whether it ends here for good."""
        raise TypeError(f"{type(self).__name__} does not define move()")

    def paint(self) -> None:
        """Draw the state on the cleared canvas."""
        raise TypeError(f"{type(self).__name__} does not define paint()")

    def expert(self) -> Action:
        """What an expert that sees the state does now."""
        raise TypeError(f"{type(self).__name__} does not define expert()")

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; with a ``seed`` always the same one."""
        super().reset(seed=seed)
        self.elapsed, self.state = 0, self.begin(self.np_random)
        return self.render(), {"true_reward": 0.0}

    def step(self, action: Action) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Act, as Gymnasium has it."""
        if self.action_dim:
            action = np.clip(np.asarray(action, np.float64), -1, 1)
        reward, ended = self.move(action, self.np_random)
        self.elapsed += 1
        cut = self.elapsed >= self.steps and not ended
        return self.render(), 0.0, ended, cut, {"true_reward": float(reward)}

    def render(self) -> np.ndarray:  # type: ignore[override]
        """The picture now, ``H W 3`` uint8."""
        self.canvas.clear()
        self.paint()
        return self.canvas.picture()

    def state_dict(self) -> dict[str, Any]:
        """All that decides how it goes on, as numbers, lists and text."""
        generator = json.dumps(self.np_random.bit_generator.state)
        return {"state": self.state.tolist(), "elapsed": self.elapsed, "generator": generator}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.state, self.elapsed = np.array(state["state"], np.float64), int(state["elapsed"])
        self.np_random = np.random.Generator(np.random.PCG64())
        self.np_random.bit_generator.state = json.loads(state["generator"])


def towards(place: np.ndarray, aim: np.ndarray, speed: float) -> np.ndarray:
    """The action (each -1 to 1) that goes to an aim, straight and no farther, for a ``speed`` in sides a step."""
    step = (aim - place) / speed
    return step / max(1.0, float(np.abs(step).max()))

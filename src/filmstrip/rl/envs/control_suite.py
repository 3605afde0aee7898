"""The DeepMind Control Suite as an environment of Gymnasium.

Its simulator draws 16 to 40 pictures a second in software: enough to look at rewards, too slow to learn by. With
``dm_control`` 1.0.50, ``mujoco`` must be older than 4.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from filmstrip.errors import UserError

CAMERAS = {"quadruped": 2}
"""Number of the camera where it is not the first one (as VIPER's code has it)."""


class ControlSuite(gymnasium.Env[np.ndarray, np.ndarray]):
    """``dm_control/DOMAIN-TASK``; a domain may have underscores, and ``-v0`` at the end is ignored."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 50}  # type: ignore[misc]

    def __init__(self, name: str, size: int) -> None:
        os.environ.setdefault("MUJOCO_GL", "egl")
        from dm_control import suite

        domain, _, task = name.partition("/")[2].removesuffix("-v0").partition("-")
        task = task.replace("-", "_")
        if (domain, task) not in suite.ALL_TASKS:
            raise UserError(f"there is no task {name!r} of dm_control: it is dm_control/DOMAIN-TASK, as walker-walk")
        self._load = lambda seed: suite.load(domain, task, task_kwargs={"random": seed})
        self._size, self._camera = size, CAMERAS.get(domain, 0)
        self._env = self._load(0)
        action = self._env.action_spec()
        self.action_space = spaces.Box(
            action.minimum.astype(np.float32), action.maximum.astype(np.float32), dtype=np.float32
        )
        self.observation_space = spaces.Box(0, 255, (size, size, 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """As Gymnasium has it."""
        super().reset(seed=seed)
        if seed is not None:
            self._env = self._load(seed % 2**32)
        self._env.reset()
        return self.render(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """As Gymnasium has it: the end of time is no terminal state."""
        step = self._env.step(action)
        ended = step.last() and step.discount == 0
        return self.render(), float(step.reward or 0.0), bool(ended), bool(step.last() and not ended), {}

    def render(self) -> np.ndarray:  # type: ignore[override]
        """The camera's picture."""
        return self._env.physics.render(self._size, self._size, camera_id=self._camera)

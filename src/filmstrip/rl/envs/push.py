"""``push``: push a thing into the middle of a table; nothing is earned before it is there."""

from __future__ import annotations

import math

import numpy as np

from filmstrip.data.synthetic.demonstrations import TableTask
from filmstrip.data.synthetic.pushing import GRIPPER, ROUND
from filmstrip.rl.envs.own import OwnEnvironment
from filmstrip.rl.envs.painting import Canvas

ZONE = 0.09
"""Distance of the thing from the middle within which it is in the zone, sides of the picture."""


class Push(OwnEnvironment):
    """The table of the sets ``pushing`` and ``demonstrations``, their motions and their expert, drawn more simply.

    The true reward of a step is 1 while the thing is in the zone, and 0 elsewhere.
    """

    task = TableTask(goal="push", tolerance=ZONE)

    def background(self, size: int) -> Canvas:
        """The table with its zone."""
        canvas = Canvas(size, (120, 104, 88))
        canvas.bar(0.04, 0.04, 0.96, 0.96, (166, 148, 124))
        canvas.ring(0.5, 0.5, ZONE + 0.03, 0.03, (230, 230, 240))
        canvas.keep()
        return canvas

    def begin(self, rng: np.random.Generator) -> np.ndarray:
        """The gripper, the thing (x, y, angle) and its radius."""
        self.episode = self.task.begin(int(rng.integers(2**31)), self.size)
        return self._state()

    def move(self, action: np.ndarray, rng: np.random.Generator) -> tuple[float, bool]:
        """See the class."""
        self.episode.table.step(action)
        self.state = self._state()
        return float(self.episode.solved), False

    def paint(self) -> None:
        """The thing with a mark that shows how it is turned, and the gripper at the end of its arm."""
        gx, gy, x, y, angle, radius = self.state.tolist()
        radius *= ROUND
        mark = x + 0.55 * radius * math.cos(angle), y + 0.55 * radius * math.sin(angle)
        self.canvas.disc(x, y, radius, (60, 110, 190))
        self.canvas.disc(*mark, 0.3 * radius, (230, 230, 235))
        self.canvas.line((0.5, -0.05), (gx, gy), 0.05, (150, 155, 165))
        self.canvas.disc(gx, gy, GRIPPER, (225, 110, 40))

    def expert(self) -> np.ndarray:
        """The demonstrations' own."""
        return self.episode.expert()

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from a state."""
        super().load_state_dict(state)
        self.episode = self.task.begin(0, self.size)
        table = self.episode.table
        table.gripper, table.things, table.radii = self.state[:2].copy(), self.state[None, 2:5].copy(), self.state[5:]

    def _state(self) -> np.ndarray:
        table = self.episode.table
        return np.concatenate([table.gripper, table.things[0], table.radii])

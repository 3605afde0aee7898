"""``pick``: an arm brings its tip to one of four goals that look alike; nothing but the task says which is meant."""

from __future__ import annotations

import math

import numpy as np

from filmstrip.errors import UserError
from filmstrip.rl.envs.own import OwnEnvironment, towards
from filmstrip.rl.envs.painting import Canvas
from filmstrip.rl.envs.reach import BASE, GOALS, LOOKS

SPEED = 0.03
"""Sides that the tip moves in a step at most, in each direction."""
NEAREST, FARTHEST = 0.07, 0.39
"""Distances from the base that the tips of both looks can have."""


class Pick(OwnEnvironment):
    """The tip of an arm is moved by the action, and the links follow, to one of four goals around the base.

    The first picture says nothing of the task: with the same seed it is the same in all four. The true reward of a
    step is 1 at the goal and falls to 0 at 0.2 sides from it.
    """

    steps = 24

    def __init__(
        self, size: int = 32, render_mode: str | None = "rgb_array", task: str = "right", look: str = "steel"
    ) -> None:
        if task not in GOALS or look not in LOOKS:
            raise UserError(
                f"pick/{task}/{look} does not exist: tasks are {', '.join(GOALS)}, and looks {', '.join(LOOKS)}"
            )
        self.task, self.look = task, look
        self.links, self.width, self.upper, self.lower = LOOKS[look]
        self.drawn: np.ndarray | None = None
        super().__init__(size, render_mode)

    def background(self, size: int) -> Canvas:
        """The floor, with the base."""
        canvas = Canvas(size, (38, 34, 44))
        canvas.disc(*BASE, 0.07, (90, 90, 100))
        canvas.keep()
        return canvas

    def begin(self, rng: np.random.Generator) -> np.ndarray:
        """Where the tip is, and the goals, in the order of the tasks."""
        angle, far = rng.uniform(0, 2 * math.pi), rng.uniform(NEAREST, 0.1)
        places = [_around(angle, far)]
        for direction in GOALS.values():
            places.append(_around(direction + rng.uniform(-0.35, 0.35), rng.uniform(0.26, 0.34)))
        return np.concatenate(places)

    def move(self, action: np.ndarray, rng: np.random.Generator) -> tuple[float, bool]:
        """See the class."""
        x, y = self.state[:2] + SPEED * action - BASE
        self.state[:2] = _around(math.atan2(y, x), min(max(math.hypot(x, y), NEAREST), FARTHEST))
        distance = math.hypot(*(self.state[:2] - self._goal()))
        return min(1.0, max(0.0, (0.2 - distance) / 0.15)), False

    def paint(self) -> None:
        """The goals, drawn once an episode, then the arm over them."""
        if self.drawn is None or not np.array_equal(self.drawn, self.state[2:]):
            self.drawn, self.canvas = self.state[2:].copy(), self.background(self.canvas.size)
            for x, y in self.drawn.reshape(-1, 2):
                self.canvas.disc(x, y, 0.06, (70, 180, 100))
            self.canvas.keep()
        (x, y), (first, second) = self.state[:2] - BASE, self.links
        cosine = (x * x + y * y + first**2 - second**2) / (2 * first * math.hypot(x, y))
        turn = math.atan2(y, x) - math.acos(min(1.0, max(-1.0, cosine)))
        elbow = BASE[0] + first * math.cos(turn), BASE[1] + first * math.sin(turn)
        self.canvas.line(BASE, elbow, self.width * 1.2, self.lower)
        self.canvas.line(elbow, (self.state[0], self.state[1]), self.width, self.upper)

    def expert(self) -> np.ndarray:
        """Straight to the goal, slower where it is near."""
        return towards(self.state[:2], self._goal(), 3 * SPEED)

    def _goal(self) -> np.ndarray:
        place = 2 + 2 * list(GOALS).index(self.task)
        return self.state[place : place + 2]


def _around(angle: float, far: float) -> np.ndarray:
    """The place in a direction from the base, at a distance."""
    return np.array(BASE) + far * np.array([math.cos(angle), math.sin(angle)])

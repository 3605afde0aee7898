"""``pick``: an arm brings its tip to one of four goals that look alike; nothing but the task says which is meant."""

from __future__ import annotations

import math

import numpy as np

from filmstrip.rl.envs.own import towards
from filmstrip.rl.envs.reach import BASE, GOALS, Arm

SPEED = 0.03
"""Sides that the tip moves in a step at most, in each direction."""
NEAREST, FARTHEST = 0.07, 0.39
"""Distances from the base that the tips of both looks can have."""


class Pick(Arm):
    """The tip of an arm is moved by the action, and the links follow, to one of four goals around the base.

    The first picture says nothing of the task: with the same seed it is the same in all four. The true reward of a
    step is 1 at the goal and falls to 0 at 0.2 sides from it.
    """

    steps = 24
    drawn: np.ndarray | None = None
    """The goals that the canvas keeps as its background."""

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
        return self.reward(distance), False

    def paint(self) -> None:
        """The goals, drawn once an episode, then the arm over them."""
        if self.drawn is None or not np.array_equal(self.drawn, self.state[2:]):
            self.drawn, self.canvas = self.state[2:].copy(), self.background(self.canvas.size)
            for x, y in self.drawn.reshape(-1, 2):
                self.paint_goal(x, y)
            self.canvas.keep()
        (x, y), (first, second) = self.state[:2] - BASE, self.links
        cosine = (x * x + y * y + first**2 - second**2) / (2 * first * math.hypot(x, y))
        turn = math.atan2(y, x) - math.acos(min(1.0, max(-1.0, cosine)))
        elbow = BASE[0] + first * math.cos(turn), BASE[1] + first * math.sin(turn)
        self.paint_arm(elbow, (self.state[0], self.state[1]))

    def expert(self) -> np.ndarray:
        """Straight to the goal, slower where it is near."""
        return towards(self.state[:2], self._goal(), 3 * SPEED)

    def _goal(self) -> np.ndarray:
        place = 2 + 2 * list(GOALS).index(self.task)
        return self.state[place : place + 2]


def _around(angle: float, far: float) -> np.ndarray:
    """The place in a direction from the base, at a distance."""
    return np.array(BASE) + far * np.array([math.cos(angle), math.sin(angle)])

"""``point``: go to a coloured target and stay there. ``orbit``: circle around the middle at a given speed."""

from __future__ import annotations

import math

import numpy as np

from filmstrip.rl.envs.own import OwnEnvironment, towards

SPEED = 0.06
"""Sides of the picture that a point moves in a step, along each axis."""
NEAR, FAR = 0.05, 0.25
"""Distances from the target within which the reward is full, and beyond which there is none."""
RADIUS, TURN = 0.3, 0.18
"""Radius of the orbit, and the angle of a step on it, radians."""


class Point(OwnEnvironment):
    """A point is moved to a target, where it is to stay.

    The true reward of a step is 1 at the target and falls to 0 at a distance of 0.25 sides. The point starts farther
    away: doing nothing earns nothing. An expert stands still most of the time, as one who does nothing does.
    """

    def begin(self, rng: np.random.Generator) -> np.ndarray:
        """The point, then the target."""
        while True:
            places = rng.uniform(0.12, 0.88, 4)
            if np.hypot(*(places[:2] - places[2:])) > 0.4:
                return places

    def move(self, action: np.ndarray, rng: np.random.Generator) -> tuple[float, bool]:
        """See the class."""
        self.state[:2] = np.clip(self.state[:2] + SPEED * action, 0.05, 0.95)
        distance = math.hypot(self.state[0] - self.state[2], self.state[1] - self.state[3])
        return min(1.0, max(0.0, (FAR - distance) / (FAR - NEAR))), False

    def paint(self) -> None:
        """A green target, then the point."""
        x, y, tx, ty = self.state.tolist()
        self.canvas.disc(tx, ty, 0.10, (60, 170, 90))
        self.canvas.disc(x, y, 0.055, (240, 220, 90))

    def expert(self) -> np.ndarray:
        """Straight to the target."""
        return towards(self.state[:2], self.state[2:], SPEED)


class Orbit(OwnEnvironment):
    """A point circles around the middle, counterclockwise as seen, 35 steps a turn.

    The true reward of a step is the product of how near it is to the circle and how near its angular speed is to the
    wanted one. Each single picture of an expert says nothing of its direction: a reward that has no memory cannot
    tell it from one that stands on the circle.
    """

    def begin(self, rng: np.random.Generator) -> np.ndarray:
        """Where the point is: anywhere but in the middle."""
        while True:
            place = rng.uniform(0.1, 0.9, 2)
            if np.hypot(*(place - 0.5)) > 0.12:
                return place

    def move(self, action: np.ndarray, rng: np.random.Generator) -> tuple[float, bool]:
        """See the class."""
        before = math.atan2(self.state[1] - 0.5, self.state[0] - 0.5)
        self.state = np.clip(self.state + SPEED * action, 0.05, 0.95)
        x, y = self.state[0] - 0.5, self.state[1] - 0.5
        turned = (before - math.atan2(y, x) + math.pi) % (2 * math.pi) - math.pi
        on_circle = max(0.0, 1 - abs(math.hypot(x, y) - RADIUS) / 0.15)
        return on_circle * max(0.0, 1 - abs(turned - TURN) / TURN), False

    def paint(self) -> None:
        """A dot in the middle, then the point."""
        self.canvas.disc(0.5, 0.5, 0.03, (120, 120, 140))
        self.canvas.disc(self.state[0], self.state[1], 0.06, (110, 200, 240))

    def expert(self) -> np.ndarray:
        """To where the point on the circle is a step later."""
        x, y = self.state - 0.5
        angle = math.atan2(y, x) - TURN
        radius = RADIUS + np.clip(math.hypot(x, y) - RADIUS, -0.04, 0.04) * 0.5
        if abs(math.hypot(x, y) - RADIUS) > 0.06:
            radius = math.hypot(x, y) + math.copysign(0.05, RADIUS - math.hypot(x, y))
        return towards(self.state, 0.5 + radius * np.array([math.cos(angle), math.sin(angle)]), SPEED)

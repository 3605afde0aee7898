"""``reach``: an arm of two links brings its tip to a goal by torques; two looks of the arm, four tasks."""

from __future__ import annotations

import math

import numpy as np

from filmstrip.errors import UserError
from filmstrip.rl.envs.own import OwnEnvironment
from filmstrip.rl.envs.painting import Canvas, Colour

BASE = (0.5, 0.5)
GOALS = {"right": 0.0, "down": 0.5 * math.pi, "left": math.pi, "up": 1.5 * math.pi}
"""Direction of each task's goal from the base, radians."""
LOOKS: dict[str, tuple[tuple[float, float], float, Colour, Colour]] = {
    "steel": ((0.21, 0.19), 0.045, (190, 200, 215), (120, 130, 150)),
    "orange": ((0.17, 0.23), 0.085, (235, 130, 50), (150, 80, 40)),
}
"""Lengths of the two links, their width, and the colours of the second and the first one."""
GAIN, DAMPING = 0.045, 0.25
"""Change of a joint's speed for a torque of one, radians a step each step, and the share of speed lost in a step."""


class Arm(OwnEnvironment):
    """An arm of two links on a floor, in one of two looks, and a task: the goal that its tip is to be brought to."""

    def __init__(
        self, size: int = 32, render_mode: str | None = "rgb_array", task: str = "right", look: str = "steel"
    ) -> None:
        if task not in GOALS or look not in LOOKS:
            raise UserError(
                f"{type(self).__name__.lower()}/{task}/{look} does not exist: tasks are {', '.join(GOALS)}, and "
                f"looks {', '.join(LOOKS)}"
            )
        self.task, self.look = task, look
        self.links, self.width, self.upper, self.lower = LOOKS[look]
        super().__init__(size, render_mode)

    def background(self, size: int) -> Canvas:
        """The floor, with the base."""
        canvas = Canvas(size, (38, 34, 44))
        canvas.disc(*BASE, 0.07, (90, 90, 100))
        canvas.keep()
        return canvas

    def reward(self, distance: float) -> float:
        """1 at the goal, falling to 0 at 0.2 sides from it."""
        return min(1.0, max(0.0, (0.2 - distance) / 0.15))

    def paint_goal(self, x: float, y: float) -> None:
        """Draw a goal."""
        self.canvas.disc(x, y, 0.06, (70, 180, 100))

    def paint_arm(self, elbow: tuple[float, float], tip: tuple[float, float]) -> None:
        """Draw both links."""
        self.canvas.line(BASE, elbow, self.width * 1.2, self.lower)
        self.canvas.line(elbow, tip, self.width, self.upper)


class Reach(Arm):
    """The tip of an arm is brought to a goal, which depends on the task: right, down, left or up of the base.

    Joints have inertia: in the first steps of an episode little moves, whatever is done. The true reward of a step is
    1 at the goal and falls to 0 at 0.2 sides from it; the arm starts on the other side.
    """

    steps = 60

    def begin(self, rng: np.random.Generator) -> np.ndarray:
        """Two joint angles (of the first link, and of the second relative to it), their speeds, and the goal."""
        direction = GOALS[self.task] + rng.uniform(-0.35, 0.35)
        reach = rng.uniform(0.26, 0.34)
        goal = np.array(BASE) + reach * np.array([math.cos(direction), math.sin(direction)])
        start = GOALS[self.task] + math.pi + rng.uniform(-0.9, 0.9)
        return np.array([start, rng.uniform(0.5, 1.4), 0.0, 0.0, *goal])

    def move(self, action: np.ndarray, rng: np.random.Generator) -> tuple[float, bool]:
        """See the class."""
        speeds = (1 - DAMPING) * self.state[2:4] + GAIN * action
        self.state[2:4] = speeds
        self.state[:2] += speeds
        self.state[1] = np.clip(self.state[1], 0.05, 2.8)
        _, tip = self._joints()
        distance = math.hypot(tip[0] - self.state[4], tip[1] - self.state[5])
        return self.reward(distance), False

    def paint(self) -> None:
        """The goal, then the arm over it."""
        elbow, tip = self._joints()
        self.paint_goal(self.state[4], self.state[5])
        self.paint_arm(elbow, tip)

    def expert(self) -> np.ndarray:
        """Towards the joint angles at which the tip is at the goal, braking in time."""
        x, y = self.state[4] - BASE[0], self.state[5] - BASE[1]
        first, second = self.links
        cosine = np.clip((x * x + y * y - first**2 - second**2) / (2 * first * second), -1, 1)
        bend = math.acos(cosine)
        wanted = math.atan2(y, x) - math.atan2(second * math.sin(bend), first + second * math.cos(bend))
        turn = (wanted - self.state[0] + math.pi) % (2 * math.pi) - math.pi
        error = np.array([turn, bend - self.state[1]])
        return np.clip(4.0 * error - 14.0 * self.state[2:4], -1, 1)

    def _joints(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Where the elbow and the tip are."""
        one, both = self.state[0], self.state[0] + self.state[1]
        elbow = BASE[0] + self.links[0] * math.cos(one), BASE[1] + self.links[0] * math.sin(one)
        tip = elbow[0] + self.links[1] * math.cos(both), elbow[1] + self.links[1] * math.sin(both)
        return elbow, tip

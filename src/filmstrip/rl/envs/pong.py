"""``pong``: return the ball; two digits show the score, and a game that is won or lost is over."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from filmstrip.rl.envs.own import OwnEnvironment
from filmstrip.rl.envs.painting import Canvas

TOP, BOTTOM = 0.22, 0.97
"""Upper and lower edge of the field; the score is above it."""
PADDLE, REACH = 0.045, 0.10
"""Speed of paddles in sides a step, and half their height."""
BALL = 0.045
"""Speed of the ball along each axis, sides a step."""
POINTS = 5
"""Points that end a game."""
LEFT, RIGHT = 0.08, 0.92
X, Y, VX, VY, OWN, OTHER, WON, LOST, LAG = range(9)


class Pong(OwnEnvironment):
    """The right paddle plays against the left one, which follows the ball a little late and not always.

    Actions: nothing, up, down. The true reward is 1 for a point and -1 for a point lost; the game is over, a terminal
    state, at five of one player's.
    """

    steps = 400
    action_dim = 0
    num_actions = 3
    scoreboard: ClassVar[tuple[float, float, float, float] | None] = (0.0, 0.0, 1.0, 0.2)

    _shown: tuple[int, int] | None = None

    def background(self, size: int) -> Canvas:
        """The field."""
        canvas = Canvas(size, (20, 20, 24))
        canvas.bar(0.0, TOP - 0.03, 1.0, TOP, (110, 110, 110))
        canvas.bar(0.0, BOTTOM, 1.0, 1.0, (110, 110, 110))
        canvas.keep()
        return canvas

    def begin(self, rng: np.random.Generator) -> np.ndarray:
        """Ball and its speed, both paddles, both scores, and how late the opponent is."""
        state = np.zeros(9)
        state[OWN] = state[OTHER] = (TOP + BOTTOM) / 2
        self._serve(state, rng)
        return state

    def _serve(self, state: np.ndarray, rng: np.random.Generator) -> None:
        state[X], state[Y] = 0.5, rng.uniform(TOP + 0.15, BOTTOM - 0.15)
        state[VX] = BALL * rng.choice((-1.0, 1.0))
        state[VY] = BALL * rng.uniform(-0.9, 0.9)
        state[LAG] = rng.uniform(-0.12, 0.12)

    def move(self, action: int, rng: np.random.Generator) -> tuple[float, bool]:
        """See the class."""
        s = self.state
        s[OWN] += PADDLE * (0, -1, 1)[int(action)]
        if rng.random() < 0.85:
            aim = s[Y] + s[LAG] if s[VX] < 0 else (TOP + BOTTOM) / 2
            s[OTHER] += np.clip(aim - s[OTHER], -0.7 * PADDLE, 0.7 * PADDLE)
        s[OWN : OTHER + 1] = np.clip(s[OWN : OTHER + 1], TOP + REACH, BOTTOM - REACH)
        s[X] += s[VX]
        s[Y] += s[VY]
        if not TOP + 0.025 < s[Y] < BOTTOM - 0.025:
            s[VY] = -s[VY]
            s[Y] = np.clip(s[Y], TOP + 0.025, BOTTOM - 0.025)
        for paddle, side, coming in ((OWN, RIGHT, s[VX] > 0), (OTHER, LEFT, s[VX] < 0)):
            if coming and abs(s[X] - side) < BALL and abs(s[Y] - s[paddle]) < REACH + 0.02:
                s[VX] = -s[VX]
                s[VY] = BALL * np.clip((s[Y] - s[paddle]) / REACH, -1, 1) * 0.9 + rng.normal(0, 0.004)
                s[LAG] = rng.uniform(-0.13, 0.13)
        if 0 < s[X] < 1:
            return 0.0, False
        won = s[X] >= 1
        s[LOST if won else WON] += 1
        self._serve(s, rng)
        return (-1.0 if won else 1.0), bool(max(s[WON], s[LOST]) >= POINTS)

    def paint(self) -> None:
        """The score, the paddles and the ball."""
        s, score = self.state, (int(self.state[LOST]), int(self.state[WON]))
        if score != self._shown:  # digits change rarely, and are many bars
            self._shown, self.canvas = score, self.background(self.size)
            self.canvas.digit(score[0], 0.22, 0.02, 0.16, (230, 120, 90))
            self.canvas.digit(score[1], 0.70, 0.02, 0.16, (110, 200, 120))
            self.canvas.keep()
            self.canvas.clear()
        canvas = self.canvas
        canvas.bar(LEFT - 0.04, s[OTHER] - REACH, LEFT, s[OTHER] + REACH, (230, 120, 90))
        canvas.bar(RIGHT, s[OWN] - REACH, RIGHT + 0.04, s[OWN] + REACH, (110, 200, 120))
        canvas.bar(s[X] - 0.025, s[Y] - 0.025, s[X] + 0.025, s[Y] + 0.025, (240, 240, 240))

    def expert(self) -> int:
        """To where the ball arrives, hitting it off the paddle's middle, away from the opponent."""
        s = self.state
        if s[VX] < 0:
            aim = (TOP + BOTTOM) / 2
        else:
            steps = (RIGHT - s[X]) / s[VX]
            low, high = TOP + 0.025, BOTTOM - 0.025
            folded = (s[Y] + steps * s[VY] - low) % (2 * (high - low))
            arrival = low + min(folded, 2 * (high - low) - folded)
            aim = arrival + math.copysign(0.7 * REACH, s[OTHER] - (TOP + BOTTOM) / 2)
        return 0 if abs(aim - s[OWN]) < PADDLE / 2 else 1 if aim < s[OWN] else 2

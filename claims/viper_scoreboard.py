"""A score that changes looks unlikely, whoever scores: blanked, it costs no reward."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from claims.expert_films import model_of, played
from claims.ledger import Claim, Figure, above
from filmstrip.rl.envs.pong import Pong

TRAIN, TESTS, STEPS = 30, 10, 160
MODEL = {"patch": 4, "window": 4, "code_steps": 600}
"""Codes of 4 x 4 pixels, for of larger ones digits are lost, and frames of which the last is scored."""

CLAIM = Claim(
    systems=("rewards.viper", "generation.videogpt"),
    finding=__doc__.strip(),
    paper="Escontrela et al. 2023: in Pong the likelihood falls when a point is scored, for the digits change; "
    "blanking the scoreboard helps and makes learning stable (no numbers).",
    here=f"Own `pong` with two digits, 32 x 32 pixels: VideoGPT of 4 frames learns {TRAIN} games (of {STEPS} steps) "
    f"of a scripted player, with and without the scoreboard blanked. In {TESTS} others, the reward of steps at which "
    "a score changes is compared with that of all other steps.",
    baseline="The scoreboard as it is.",
    figures={
        "drop": Figure(says="reward lost where a score changes, nats a code", digits=3),
        "drop blanked": Figure(says="the same with the scoreboard blanked", digits=3),
        "own drop": Figure(says="reward lost where the player itself scores", digits=3),
        "own drop blanked": Figure(says="the same with the scoreboard blanked", digits=3),
    },
    expected=(
        above("drop", "drop blanked", "a blanked scoreboard costs less at a change of score"),
        above("own drop", "own drop blanked", "also where the player scores"),
        above("drop", 0.0, "a changing score is unlikely"),
    ),
    analysis="Where a score changes the likelihood falls in every seed (0.34, 0.15 and 0.27 nats a code), and with "
    "the scoreboard blanked a third to a half as much (0.11, 0.05 and 0.14): a point looks unlikely by the ball and "
    "the bats, too. Three seeds that differ so much do not prove by how much less. In two of them all points were "
    "the player's own.",
    minutes=24,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    films = [one.film for one in played("pong", range(1000 * seed, 1000 * seed + TRAIN), (0.95,), STEPS)]
    tests = range(500_000 + 1000 * seed, 500_000 + 1000 * seed + TESTS)
    seen = [one.film for one in played("pong", tests, (0.8,), STEPS)]
    assert Pong.scoreboard is not None, "it has one"
    found = {}
    for name, blanked in (("drop", ()), ("drop blanked", (Pong.scoreboard,))):
        rewards = model_of(films, seed, blanked=blanked, **MODEL).of_films(seen)
        changed, own, rest = [], [], []
        for film, one in zip(seen, rewards):
            score = film[:, :, : round(Pong.scoreboard[3] * film.shape[-1])]
            columns = (score[1:] != score[:-1]).any(dim=2).any(dim=1).numpy()  # T W
            changes, won = columns.any(axis=1), columns[:, columns.shape[1] // 2 :].any(axis=1)
            values = one.values[1:]
            changed.append(values[changes])
            own.append(values[changes & won])
            rest.append(values[~changes])
        usual = float(np.mean(np.concatenate(rest)))
        found[name] = usual - float(np.mean(np.concatenate(changed)))
        found[f"own {name}"] = usual - float(np.mean(np.concatenate(own)))
    return found

"""The likelihood of experts' videos ranks what an agent does: its episodes by their true returns."""

from __future__ import annotations

from pathlib import Path

from claims.expert_films import model_of, played, rewarded_by
from claims.ledger import Claim, Figure, above, below
from filmstrip.evals.reward_alignment import alignment

TRAIN, TESTS, QUALITIES = 40, 40, (0.0, 0.25, 0.5, 0.75, 1.0)

CLAIM = Claim(
    systems=("rewards.viper", "generation.videogpt"),
    finding=__doc__.strip(),
    paper="Escontrela et al. 2023: rewards of 40 trajectories correlate with their returns, experts' are high and "
    "random ones' low (plots without numbers).",
    here=f"`orbit` (a point that circles, 32 x 32 pixels): VideoGPT of 8 frames learns {TRAIN} episodes of an "
    f"expert of quality 0.9. {TESTS} others, of qualities {', '.join(map(str, QUALITIES))}, are rewarded frame by "
    "frame; areas under the curve are of single steps of the best and of others. `stationary` is an "
    "expert's film that stands still at one frame, `shuffled` one whose frames are mixed.",
    baseline="The likelihood of single frames by the same model (a window of 1), and of whole windows (joint).",
    figures={
        "spearman": Figure(says="rank correlation of returns and mean rewards", digits=2),
        "spearman alone": Figure(says="the same by single frames", digits=2),
        "spearman joint": Figure(says="the same by whole windows", digits=2),
        "random": Figure(says="area under the curve, expert against random", digits=2),
        "stationary": Figure(says="expert against standing still", digits=2),
        "shuffled": Figure(says="expert against shuffled", digits=2),
        "random alone": Figure(says="expert against random, by single frames", digits=2),
        "expert reward": Figure(says="mean reward of experts, nats a code", digits=3),
        "random reward": Figure(says="of random actions", digits=3),
        "still reward": Figure(says="of standing still", digits=3),
    },
    expected=(
        above("spearman", 0.7, "rewards rank episodes as their returns do"),
        above("random", 0.8, "steps of an expert earn more than random ones"),
        above("shuffled", 0.7, "and more than the same frames in another order"),
        above("spearman", "spearman alone", "the past tells more than single frames"),
        below("still reward", "expert reward", "standing still earns less than an expert"),
    ),
    analysis="Rewards rank episodes as returns do, with a rank correlation of 0.96. So do single frames (0.95): a "
    "worse expert of `orbit` leaves the circle, which each frame shows. What only the past tells, order and motion, "
    "shows where frames are shuffled or stand still (areas of 0.98), where a single frame could tell nothing.",
    minutes=9,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    experts = played("orbit", range(1000 * seed, 1000 * seed + TRAIN), (0.9,))
    seen = played("orbit", range(500_000 + 1000 * seed, 500_000 + 1000 * seed + TESTS), QUALITIES)
    reward = model_of([one.film for one in experts], seed)
    values, alone, joint = (
        dict(alignment(rewarded_by(reward, **settings), seen, seed))
        for settings in ({}, {"window": 1}, {"kind": "joint"})
    )
    name = f"spearman/n{TESTS}"
    return {
        "spearman": values[name],
        "spearman alone": alone[name],
        "spearman joint": joint[name],
        "random": values["auc_random"],
        "stationary": values["auc_stationary"],
        "shuffled": values["auc_shuffled"],
        "random alone": alone["auc_random"],
        "expert reward": values["reward_expert"],
        "random reward": values["reward_random"],
        "still reward": values["reward_stationary"],
    }

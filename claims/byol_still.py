"""A reward by how well the future is foretold takes standing still for an expert, where a likelihood does not."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from claims.expert_films import ROWS, SIZE, model_of, played
from claims.ledger import Claim, Figure, above, below
from claims.training import learn
from filmstrip.evals.reward_alignment import alignment
from filmstrip.protocols import Objective
from filmstrip.rl.reward_config import RewardConfig
from filmstrip.rl.rewards import VideoReward
from filmstrip.systems import find

TRAIN, TESTS, QUALITIES, STEPS = 40, 40, (0.0, 0.25, 0.5, 0.75, 1.0), 600

CLAIM = Claim(
    systems=("rewards.byol_explore",),
    finding=__doc__.strip(),
    paper="Escontrela et al. 2023: of the three video models VideoGPT teaches agents best, then BYOL-Explore, which "
    "gives high rewards to poses that are held (curves and text).",
    here=f"`orbit` (a point that circles, 32 x 32 pixels): recurrent BYOL-Explore of 6 frames learns {TRAIN} "
    f"episodes of an expert of quality 0.9 in {STEPS} steps, and VideoGPT of 8 frames the same. {TESTS} others, of "
    f"qualities {', '.join(map(str, QUALITIES))}, are rewarded frame by frame; areas under the curve are of single "
    "steps of the best and of others. `stationary` is an expert's film that stands still at one frame.",
    baseline="VideoGPT's likelihood, on the same films.",
    figures={
        "spearman": Figure(says="rank correlation of returns and mean rewards", digits=2),
        "random": Figure(says="area under the curve, expert against random", digits=2),
        "stationary": Figure(says="expert against standing still", digits=2),
        "videogpt spearman": Figure(says="rank correlation by VideoGPT", digits=2),
        "videogpt stationary": Figure(says="expert against standing still by VideoGPT", digits=2),
    },
    expected=(
        below("stationary", 0.5, "what stands still earns more than an expert"),
        above("videogpt stationary", 0.5, "by VideoGPT's likelihood it earns less"),
        above("videogpt spearman", "spearman", "VideoGPT ranks episodes better"),
        above("spearman", 0.0, "which BYOL-Explore ranks, too"),
    ),
    minutes=10,
    analysis="BYOL-Explore tells nothing here: what stands still earns more than an expert in one seed of three, and "
    "films of experts earn what random actions do. Its reward is the error of foretelling its own features, and "
    "nothing forces these to hold where a small point is; whether more steps would was not tried. VideoGPT's "
    "likelihood ranks the same films as they should be. So this is the failure that the paper reports, but it does "
    "not show that held poses are its cause.",
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    films = [one.film for one in played("orbit", range(1000 * seed, 1000 * seed + TRAIN), (0.9,))]
    seen = played("orbit", range(500_000 + 1000 * seed, 500_000 + 1000 * seed + TESTS), QUALITIES)
    foretold = VideoReward(_byol(films, seed), RewardConfig(), size=SIZE)
    own, other = (dict(alignment(reward, seen, seed)) for reward in (foretold, model_of(films, seed)))
    name = f"spearman/n{TESTS}"
    return {
        "spearman": own[name],
        "random": own["auc_random"],
        "stationary": own["auc_stationary"],
        "videogpt spearman": other[name],
        "videogpt stationary": other["auc_stationary"],
    }


def _byol(films: Sequence[Tensor], seed: int) -> Objective:
    """Recurrent BYOL-Explore, learnt from clips of the films."""
    torch.manual_seed(seed)
    config, order = find("rewards.byol_explore:tiny").objective, torch.Generator().manual_seed(seed)
    network, steps = config.build(), itertools.count()

    def draw_clips() -> dict[str, Tensor]:
        if done := next(steps):
            network.after_step(done)  # the target follows
        rows = []
        for number in torch.randint(len(films), (ROWS,), generator=order).tolist():
            start = int(torch.randint(len(films[number]) - config.num_frames + 1, (1,), generator=order))
            rows.append(films[number][start : start + config.num_frames])
        return {"video": torch.stack(rows)}

    return learn(network, draw_clips, steps=STEPS, lr=2e-3, weight_decay=0.0)

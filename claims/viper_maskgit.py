"""As a reward MaskGIT costs many times what VideoGPT does, depends on the order of its codes, and tells less."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from claims.expert_films import PRIOR_STEPS, ROWS, SIZE, WINDOW, model_of, played, rewarded_by
from claims.ledger import Claim, Figure, above
from claims.training import learn
from filmstrip.evals.reward_alignment import alignment
from filmstrip.protocols import Objective
from filmstrip.rl.reward_config import RewardConfig
from filmstrip.rl.rewards import VideoReward
from filmstrip.systems import find

TRAIN, TESTS, QUALITIES = 40, 20, (0.0, 0.25, 0.5, 0.75, 1.0)
ORDERS, ROUNDS = 4, 3
"""Seeds of the order in which codes are revealed, and rounds of timing."""

CLAIM = Claim(
    systems=("rewards.viper", "generation.maskgit"),
    finding=__doc__.strip(),
    paper="Escontrela et al. 2023: MaskGIT, with up to 8 passes for a likelihood, makes rewards about 8 times as "
    "slow, and agents learn clearly worse by them than by VideoGPT's (text and curves).",
    here=f"`orbit` (a point that circles, 32 x 32 pixels): VideoGPT of {WINDOW} frames and MaskGIT, frames in order "
    f"and 8 passes for a frame's 16 codes, of the same width and depth, learn {TRAIN} episodes of an expert of "
    f"quality 0.9 in {PRIOR_STEPS} steps each, above one tokenizer. {TESTS} others, of qualities "
    f"{', '.join(map(str, QUALITIES))}, are rewarded; areas under the curve are of single steps of the best and of "
    f"others. MaskGIT's rewards are found for {ORDERS} orders of its codes; times are of the process, medians of "
    f"{ROUNDS} rounds. BYOL-Explore on such films is in the claim `byol_still`.",
    baseline="VideoGPT, whose likelihood has no order to choose.",
    figures={
        "time": Figure(says="time of MaskGIT's rewards, times VideoGPT's"),
        "order": Figure(says="spread of a step's reward over orders, % of that over an expert's steps", digits=0),
        "videogpt spearman": Figure(says="rank correlation of returns and mean rewards by VideoGPT", digits=2),
        "maskgit spearman": Figure(says="the same by MaskGIT", digits=2),
        "videogpt random": Figure(says="expert against random by VideoGPT", digits=3),
        "maskgit random": Figure(says="the same by MaskGIT", digits=3),
        "videogpt shuffled": Figure(says="expert against shuffled by VideoGPT", digits=3),
        "maskgit shuffled": Figure(says="the same by MaskGIT", digits=3),
        "videogpt stationary": Figure(says="expert against standing still by VideoGPT", digits=3),
        "maskgit stationary": Figure(says="the same by MaskGIT", digits=3),
    },
    expected=(
        above("time", 6.0, "8 passes cost at least six times as much"),
        above("videogpt shuffled", "maskgit shuffled", "VideoGPT tells order and motion better"),
        above("videogpt random", "maskgit random", "and an expert from random actions"),
        above("videogpt spearman", "maskgit spearman", "and ranks episodes better"),
        above("order", 5.0, "MaskGIT's reward depends on an order that means nothing"),
    ),
    minutes=16,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    films = [one.film for one in played("orbit", range(1000 * seed, 1000 * seed + TRAIN), (0.9,))]
    seen = played("orbit", range(500_000 + 1000 * seed, 500_000 + 1000 * seed + TESTS), QUALITIES)
    videogpt = model_of(films, seed)
    maskgit = VideoReward(_maskgit(videogpt.objective, films, seed), RewardConfig(), size=SIZE)
    found = {}
    for name, reward in (("videogpt", videogpt), ("maskgit", maskgit)):
        values = dict(alignment(reward, seen, seed))
        found[f"{name} spearman"] = values[f"spearman/n{TESTS}"]
        found |= {f"{name} {kind}": values[f"auc_{kind}"] for kind in ("random", "shuffled", "stationary")}
    experts = [one.film for one in seen if one.quality == max(QUALITIES)]
    orders = [
        np.concatenate([one.values[1:] for one in rewarded_by(maskgit, seed=order).of_films(experts)])
        for order in range(ORDERS)
    ]
    each = np.stack(orders)
    found["order"] = 100 * float(np.sqrt(each.var(axis=0, ddof=1).mean()) / each.mean(axis=0).std())
    coded = [videogpt.codes(film) for film in experts]
    seconds: dict[str, list[float]] = {"videogpt": [], "maskgit": []}
    for _ in range(ROUNDS):
        for name, reward in (("videogpt", videogpt), ("maskgit", maskgit)):
            begin = time.process_time()
            reward.of_codes(coded)
            seconds[name].append(time.process_time() - begin)
    found["time"] = statistics.median(seconds["maskgit"]) / statistics.median(seconds["videogpt"])
    return found


def _maskgit(prior: Objective, films: Sequence[Tensor], seed: int) -> Objective:
    """MaskGIT, frames in order, of the codes of a VideoGPT's tokenizer."""
    torch.manual_seed(seed)
    order, config = torch.Generator().manual_seed(seed), find("rewards.viper:tiny_maskgit").objective
    sizes = {"width": 64, "depth": 3, "history_width": 64, "history_depth": 3, "num_frames": WINDOW}
    network = replace(config, tokenizer=find("rewards.viper:point_codes").objective, **sizes).build()
    network.tokenizer.load_state_dict(prior.tokenizer.state_dict())
    with torch.inference_mode():
        coded = [prior.frame_codes(film[None])[0].clone() for film in films]
    begins = itertools.count(step=ROWS)

    def draw_clips() -> dict[str, Tensor]:
        rows = []
        for number in torch.randint(len(coded), (ROWS,), generator=order).tolist():
            start = int(torch.randint(len(coded[number]) - WINDOW + 1, (1,), generator=order))
            rows.append(coded[number][start : start + WINDOW].flatten())
        return {"tokens": torch.stack(rows), "seed": next(begins) + torch.arange(ROWS)}

    return learn(network, draw_clips, steps=PRIOR_STEPS, lr=3e-3, weight_decay=0.0, warmup=0.1, clip_grad=1.0)

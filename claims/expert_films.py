"""Films of scripted experts, and small models of them whose likelihood is a reward: what claims on rewards share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from claims.training import learn
from filmstrip.data.blanking import Rectangle, blank
from filmstrip.evals.reward_alignment import Trajectory
from filmstrip.rl.envs import EnvironmentConfig
from filmstrip.rl.policies import scripted
from filmstrip.rl.recording import play
from filmstrip.rl.reward_config import RewardConfig
from filmstrip.rl.rewards import VideoReward
from filmstrip.systems import find

SIZE, WINDOW = 32, 8
CODE_STEPS, PRIOR_STEPS, ROWS = 300, 500, 24


def played(
    name: str, seeds: Sequence[int], qualities: Sequence[float], max_steps: int | None = None
) -> list[Trajectory]:
    """Episodes of an expert whose quality changes from one to the next."""
    environment = EnvironmentConfig(name=name, size=SIZE, max_steps=max_steps).build()
    found = []
    for number, seed in enumerate(seeds):
        quality, rng = qualities[number % len(qualities)], np.random.default_rng((seed, 7))
        one = play(
            environment,
            scripted("expert", rng, quality),
            seed,
        )
        found.append(Trajectory(one.video(), one.value, quality))
    return found


def model_of(
    films: Sequence[Tensor],
    seed: int,
    *,
    skip: int = 1,
    window: int = WINDOW,
    blanked: Sequence[Rectangle] = (),
    patch: int = 8,
    code_steps: int = CODE_STEPS,
) -> VideoReward:
    """A tokenizer of the frames, then a prior of clips of their codes, both learnt from the films alone.

    A code is for ``patch`` x ``patch`` pixels.
    """
    torch.manual_seed(seed)
    films = [blank(film, blanked) for film in films]
    frames, order = torch.cat(list(films)), torch.Generator().manual_seed(seed)
    tokenizer = replace(find("rewards.viper:point_codes").objective, num_groups=patch.bit_length())
    codes = tokenizer.build()

    def draw_frames() -> dict[str, Tensor]:
        return {"video": frames[torch.randint(len(frames), (32,), generator=order)][:, None]}

    codes = learn(codes, draw_frames, steps=code_steps, lr=3e-3, weight_decay=0.0)
    config = find("rewards.viper:point").objective
    prior = replace(config, tokenizer=tokenizer, width=64, depth=3, num_frames=window).build()
    prior.tokenizer.load_state_dict(codes.state_dict())
    with torch.inference_mode():
        coded = [torch.cat([prior.frame_codes(part[None])[0] for part in film.split(64)]).clone() for film in films]
    span = (window - 1) * skip + 1

    def draw_clips() -> dict[str, Tensor]:
        rows = []
        for number in torch.randint(len(coded), (ROWS,), generator=order).tolist():
            start = int(torch.randint(len(coded[number]) - span + 1, (1,), generator=order))
            rows.append(coded[number][start : start + span : skip].flatten())
        return {"tokens": torch.stack(rows), "seed": torch.arange(ROWS)}

    prior = learn(prior, draw_clips, steps=PRIOR_STEPS, lr=3e-3, weight_decay=0.0, warmup=0.1, clip_grad=1.0)
    return VideoReward(prior, RewardConfig(), size=SIZE, skip=skip, blanked=blanked)


def rewarded_by(reward: VideoReward, **settings: object) -> VideoReward:
    """The same model with other settings of rewards."""
    return VideoReward(
        reward.objective,
        replace(reward.config, **settings),
        size=reward.size,
        skip=reward.skip,
        blanked=reward.blanked,
    )


def steps_of(reward: VideoReward, films: Sequence[Tensor]) -> np.ndarray:
    """The rewards of all actions of some films."""
    return np.concatenate([found.values[1:] for found in reward.of_films(films)])

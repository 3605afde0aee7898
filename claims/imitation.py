"""Policies that learn from an expert on a table: its demonstrations, learning from them, and acting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from claims.training import learn
from filmstrip.data.synthetic.demonstrations import Chooser, Episode, Recording, TableTask, expert, play
from filmstrip.evals.success import acting
from filmstrip.inference import inference
from filmstrip.systems.control.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig

SIZE = 32
TASK = TableTask(goal="touch", steps=20)
"""The gripper is to be at the thing: what a policy has to know is where that is, and how to get there."""
FRAMES = TASK.steps + 1
CPU = torch.device("cpu")


@dataclass
class Lessons:
    """Frames ``N 3 H W`` uint8, where the gripper is in each (``N 2``), and what the expert does then (``N 2``)."""

    video: Tensor
    state: Tensor
    wanted: Tensor

    def with_more(self, other: Lessons) -> Lessons:
        pairs = ((getattr(one, name) for one in (self, other)) for name in ("video", "state", "wanted"))
        return Lessons(*(torch.cat(list(pair)) for pair in pairs))


def lessons(count: int, seed: tuple[int, ...], choose: Chooser = expert) -> Lessons:
    """All frames of so many episodes in which ``choose`` acts."""
    return taught(play(episodes(count, seed), choose))


def episodes(count: int, seed: tuple[int, ...]) -> list[Episode]:
    return [TASK.begin((*seed, i), SIZE) for i in range(count)]


def taught(recordings: Sequence[Recording]) -> Lessons:
    rows = [{key: np.stack(values) for key, values in one.rows.items()} for one in recordings]
    films = [one.episode.table.film(row["gripper"], row["things"]) for one, row in zip(recordings, rows)]
    numbers = (np.concatenate([row[key] for row in rows]) for key in ("gripper", "expert"))
    return Lessons(torch.cat(films), *(torch.from_numpy(values).float() for values in numbers))


def features_of(policy: BehaviourCloning, video: Tensor) -> Tensor:
    """What its encoder makes of frames ``N 3 H W``, ``N 1 D``."""
    with inference(policy):
        return torch.cat([policy.encoder.frames(part[:, None]) for part in video.split(256)]).clone()


class OnFeatures(torch.nn.Module):
    """A policy whose batches hold the features of its frozen encoder in place of frames."""

    def __init__(self, policy: BehaviourCloning) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, batch: dict[str, Tensor]):
        return self.policy.loss_of(batch["features"], batch["state"], batch["wanted"])


def clone(policy: BehaviourCloning, given: Lessons, *, steps: int, seed: int, batch: int = 128) -> None:
    """Train a policy above its frozen encoder."""
    features = features_of(policy, given.video)
    order = torch.Generator().manual_seed(seed)

    def draw() -> dict[str, Tensor]:
        rows = torch.randint(len(features), (batch,), generator=order)
        return {"features": features[rows], "state": given.state[rows, None], "wanted": given.wanted[rows, None]}

    learn(OnFeatures(policy), draw, steps=steps, lr=2e-3, weight_decay=0.01, warmup=0.1)
    policy.eval()


def clone_from_pixels(policy: BehaviourCloning, given: Lessons, *, steps: int, seed: int, batch: int = 64) -> None:
    """Train a policy and its encoder."""
    order = torch.Generator().manual_seed(seed)

    def draw() -> dict[str, Tensor]:
        rows = torch.randint(len(given.video), (batch,), generator=order)
        names = {"video": given.video, "state": given.state, "expert": given.wanted}
        return {name: values[rows, None] for name, values in names.items()}

    learn(policy, draw, steps=steps, lr=2e-3, weight_decay=0.01, warmup=0.1)


def error(policy: BehaviourCloning, given: Lessons) -> float:
    """Mean squared error of its actions."""
    features = features_of(policy, given.video)
    with inference(policy):
        return policy.loss_of(features, given.state[:, None], given.wanted[:, None]).total.item()


def solved(choose: Chooser | BehaviourCloning, count: int, seed: tuple[int, ...]) -> float:
    """The percentage of episodes that end as they should."""
    at = episodes(count, seed)
    play(at, acting(choose, CPU) if isinstance(choose, BehaviourCloning) else choose)
    return 100 * float(np.mean([episode.solved for episode in at]))


def policy_of(config: BehaviourCloningConfig, seed: int) -> BehaviourCloning:
    """A policy with fresh weights."""
    torch.manual_seed(seed)
    return replace(config, action_dim=2, state_dim=2).build().eval()

"""A policy that is shown a film of another body at the task does it, where nothing else says which task is meant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from claims.ledger import Claim, Figure, above
from claims.training import learn
from filmstrip.data.kinds.prompted import VOCABULARY
from filmstrip.data.texts import tokenised
from filmstrip.evals.prompted_success import SOLVED
from filmstrip.evals.returns import acting
from filmstrip.inference import inference
from filmstrip.rl.envs import EnvironmentConfig
from filmstrip.rl.policies import Chooser, scripted
from filmstrip.rl.recording import Episode, play
from filmstrip.systems import find
from filmstrip.systems.control.vid2robot import Vid2Robot

TASKS = ("right", "down", "left", "up")
FILMS, SCENES = 60, 15
"""Films of each arm at each task, and scenes in which each task is tried."""
STEPS, ROWS, LENGTH = 900, 16, 40
QUALITY = 0.8
CPU = torch.device("cpu")

CLAIM = Claim(
    systems=("control.vid2robot",),
    finding=__doc__.strip(),
    paper="Jain et al. 2024: 20% more success on real robots than other policies that are conditioned on videos, "
    "with people's films as prompts.",
    here=f"`pick` at 32 x 32 pixels: four goals that look alike, and {FILMS} films of a steel arm at each of four "
    f"tasks, of quality {QUALITY}. Prompts are as many films of an orange arm of other proportions, in other scenes. "
    f"The network of the preset `pick`, {STEPS} steps on {ROWS} clips; {SCENES} new scenes for each task with new "
    "prompts, the same scenes in all tasks; solved is what earns half or more at the end.",
    baseline="The same network, whose prompt is black in training and in use; and the first one, shown another task.",
    figures={
        "shown": Figure(says="episodes solved with the prompt, %", digits=0),
        "blank": Figure(says="of the network whose prompt is black, %", digits=0),
        "wrong": Figure(says="of the one with prompts, shown another task, %", digits=0),
        "random": Figure(says="of random actions, %", digits=0),
        "expert": Figure(says="of the expert, %", digits=0),
    },
    expected=(
        above("shown", "blank", "the prompt tells the task", by=20.0),
        above("blank", "wrong", "it goes by the prompt: shown another task, it does not do this one"),
    ),
    minutes=12,
)


@dataclass
class Films:
    """Films of one arm: frames ``N T 3 H W`` uint8, actions ``N T 2``, tasks ``N``."""

    video: Tensor
    action: Tensor
    task: Tensor


def measure(seed: int, folder: Path) -> dict[str, float]:
    robot = films("steel", QUALITY, FILMS, 1_000_000 * (seed + 1))
    prompts = films("orange", 1.0, FILMS, 1_000_000 * (seed + 1) + 300_000)
    unseen = films("orange", 1.0, SCENES, 1_000_000 * (seed + 1) + 600_000)
    shown, blank = (trained(robot, prompts, seed, sees_prompt=sees) for sees in (True, False))
    found = {
        "shown": solved(seed, prompted(shown, unseen)),
        "blank": solved(seed, prompted(blank, unseen)),
        "wrong": solved(seed, prompted(shown, unseen, shift=1)),
        "random": solved(seed, by_script("random")),
        "expert": solved(seed, by_script("expert")),
    }
    return {name: 100 * value for name, value in found.items()}


def films(look: str, quality: float, count: int, first: int) -> Films:
    """Films of an expert at every task; scenes differ from task to task."""
    episodes: list[Episode] = []
    for place, task in enumerate(TASKS):
        environment = environment_of(task, look)
        for number in range(first + place * 50_000, first + place * 50_000 + count):
            rng = np.random.default_rng((number, 7))
            episodes.append(play(environment, scripted("expert", rng, quality), number))
    return Films(
        torch.stack([one.video() for one in episodes]),
        torch.tensor(np.array([one.actions for one in episodes]), dtype=torch.float32),
        torch.arange(len(TASKS)).repeat_interleave(count),
    )


def environment_of(task: str, look: str = "steel"):
    return EnvironmentConfig(name=f"pick/{task}/{look}", size=32, max_steps=LENGTH).build()


def trained(robot: Films, prompts: Films, seed: int, *, sees_prompt: bool) -> Vid2Robot:
    torch.manual_seed(seed)
    config = replace(find("control.vid2robot:pick").objective, action_dim=2, sees_prompt=sees_prompt)
    order, frames = torch.Generator().manual_seed(seed), config.num_frames
    spread = evenly(config.prompt_frames)
    names, lengths = tokenised(VOCABULARY, TASKS, 8)

    def draw() -> dict[str, Tensor]:
        rows = torch.randint(len(robot.task), (ROWS,), generator=order)
        starts = torch.randint(LENGTH + 2 - frames, (ROWS,), generator=order)
        task = robot.task[rows]
        others = task * FILMS + torch.randint(FILMS, (ROWS,), generator=order)
        times = starts[:, None] + torch.arange(frames)
        return {
            "video": robot.video[rows[:, None], times],
            "action": robot.action[rows[:, None], times],
            "film": robot.video[rows][:, spread],
            "prompt": prompts.video[others][:, spread],
            "label": task,
            "text": names[task],
            "text_length": lengths[task],
        }

    return learn(config.build(), draw, steps=STEPS, lr=1e-3, weight_decay=0.01, warmup=0.05, clip_grad=1.0)


def evenly(count: int) -> Tensor:
    """Numbers of so many frames of a film, the middles of equal parts."""
    return ((torch.arange(count) + 0.5) / count * (LENGTH + 1)).long()


def prompted(policy: Vid2Robot, unseen: Films, shift: int = 0) -> Callable[[int, int, int], Chooser]:
    """The policy, shown a film of the task, or of another one."""

    def begin(place: int, number: int, seed: int) -> Chooser:
        film = unseen.video[(place + shift) % len(TASKS) * SCENES + number][evenly(policy.prompt_frames)]
        with inference(policy):
            memory = {key: value.clone() for key, value in policy.prompted(film[None]).items()}
        return acting(policy, CPU, memory)

    return begin


def by_script(kind: str) -> Callable[[int, int, int], Chooser]:
    return lambda place, number, seed: scripted(kind, np.random.default_rng((seed, place, number)))


def solved(seed: int, begin: Callable[[int, int, int], Chooser]) -> float:
    """The share of episodes that end as they should."""
    found = []
    for place, task in enumerate(TASKS):
        environment = environment_of(task)
        for number in range(SCENES):
            one = play(environment, begin(place, number, seed), 900_000_000 + 1_000 * seed + number)
            found.append(one.rewards[-1] >= SOLVED)
    return float(np.mean(found))

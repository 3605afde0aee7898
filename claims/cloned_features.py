"""An arm learns from demonstrations faster on frozen features learnt without labels than on untrained ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from claims.imitation import SIZE, TASK, clone, clone_from_pixels, error, lessons, policy_of, solved
from claims.ledger import Claim, Figure, above, below
from claims.training import learn
from filmstrip.data.synthetic.demonstrations import at_random
from filmstrip.data.synthetic.pushing import RADII, draw, simulate
from filmstrip.protocols import Objective
from filmstrip.systems import find
from filmstrip.systems.control import behaviour_cloning

VIDEOS, FRAMES, PAIR, STEPS, BATCH = 200, 8, 2, 400, 32
DEMONSTRATIONS, HELD, TESTS, EARLY, LATE = 60, 10, 24, 200, 800

CLAIM = Claim(
    systems=("control.behaviour_cloning", "pretraining.toto", "pretraining.videomae"),
    finding=__doc__.strip(),
    paper="Rajasegaran et al. 2025: with DAgger, Toto-base learns four simulated tasks of two arms faster than "
    "MAE-base (plots of success over steps); with 240 cloned demonstrations of a real arm, MVP's features solve 75% "
    "of 16 trials and Toto-base's 63%. Xiao et al. 2022 (MVP): frozen features of MAE beat learning from pixels "
    "(plots).",
    here="Pushing a thing to the middle of a table of 32 x 32 pixels (`demonstrations`, 30 actions), from one frame "
    "and the gripper's place. Toto on patches and VideoMAE, both of width 64 and depth 4, learn for "
    f"{STEPS} steps from pairs of frames of {VIDEOS} videos of an arm that moves at random; their last layers' "
    f"means are frozen. Policies clone {DEMONSTRATIONS} demonstrations, {EARLY} and {LATE} steps of 128 frames; from "
    f"pixels, the network of Toto is trained with the policy, {LATE // 2} steps of 64 frames. {TESTS} unseen tables; "
    f"errors on {HELD} unseen demonstrations.",
    baseline="The untrained network of Toto, frozen; the same trained from pixels; actions at random.",
    figures={
        "toto": Figure(says="tables solved on Toto's features, %", paper="63 (real arm)", digits=0),
        "mae": Figure(says="on VideoMAE's, %", paper="75 (real arm, MVP)", digits=0),
        "untrained": Figure(says="on an untrained network's, %", digits=0),
        "pixels": Figure(says="from pixels, %", digits=0),
        "random": Figure(says="by random actions, %", digits=0),
        "toto error": Figure(says="squared error of actions on Toto's features", digits=3),
        "mae error": Figure(says="on VideoMAE's", digits=3),
        "untrained error": Figure(says="on an untrained network's", digits=3),
        "pixels error": Figure(says="from pixels", digits=3),
        "toto early": Figure(says=f"squared error after {EARLY} steps on Toto's features", digits=3),
        "mae early": Figure(says="on VideoMAE's", digits=3),
        "untrained early": Figure(says="on an untrained network's", digits=3),
    },
    expected=(
        above("toto", "untrained", "Toto's features solve more tables than an untrained network's"),
        below("toto early", "untrained early", "and their policy errs less after a quarter of the steps"),
        below("toto early", "mae early", "and less than on VideoMAE's features"),
        below("toto error", "pixels error", "and less at the end than what learns from pixels"),
    ),
    analysis="Two seeds, measured while other work shared the cores. The errors are in the paper's order in both: "
    "Toto, VideoMAE, untrained, at either number of steps. Success is at the floor, 0 to 2 of 24 tables, because 60 "
    "demonstrations and the mean of a small network's tokens leave the policy unsure where the thing is; errors rise "
    "from 200 to 800 steps, for policies learn the demonstrations by heart. From pixels the error is about Toto's.",
    minutes=7.0,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    videos = play_of(seed)
    given, held = lessons(DEMONSTRATIONS, (seed, 0)), lessons(HELD, (seed, 1))
    toto = find("control.behaviour_cloning:table").objective.encoder
    mae = find("pretraining.videomae:tiny").objective
    mae = replace(mae, num_frames=PAIR, size=SIZE, patch_size=(2, 8, 8), width=64, depth=4, num_heads=2)
    mae = replace(mae, mask_ratio=0.75)
    found: dict[str, float] = {}
    for name, network in (("toto", toto), ("mae", mae), ("untrained", toto)):
        torch.manual_seed(seed)
        whole = network.build()
        if name != "untrained":
            pretrain(whole, videos, seed)
        config = behaviour_cloning.BehaviourCloningConfig(encoder=network, layer=-1, norm="batch")
        for key, steps in (("early", EARLY), ("error", LATE)):
            policy = policy_of(config, seed)
            policy.encoder.encoder.load_state_dict(whole.encoder.state_dict())
            clone(policy, given, steps=steps, seed=seed)
            found[f"{name} {key}"] = error(policy, held)
        found[name] = solved(policy, TESTS, (seed, 9))
    config = behaviour_cloning.BehaviourCloningConfig(encoder=toto, layer=-1, norm="batch", frozen=False)
    policy = policy_of(config, seed)
    clone_from_pixels(policy, given, steps=LATE // 2, seed=seed)
    found |= {"pixels error": error(policy, held), "pixels": solved(policy, TESTS, (seed, 9))}
    return found | {"random": solved(at_random(seed), TESTS, (seed, 9))}


def play_of(seed: int) -> Tensor:
    """Videos of an arm that moves at random, on the table of the task, ``N T 3 H W``."""
    films = []
    for i in range(VIDEOS):
        rng = np.random.default_rng((seed, 2, i))
        radii = rng.uniform(*RADII, size=1)
        motion = simulate(rng, radii, FRAMES)
        look = np.random.default_rng(TASK.look)
        films.append(draw(look, radii, motion["gripper"], motion["things"], SIZE, TASK.arm_width))
    return torch.stack(films)


def pretrain(network: Objective, videos: Tensor, seed: int) -> None:
    """Learn without labels from pairs of frames."""
    order = torch.Generator().manual_seed(seed)

    def draw_pairs() -> dict[str, Tensor]:
        rows = torch.randint(VIDEOS, (BATCH, 1), generator=order)
        first = torch.randint(FRAMES - PAIR + 1, (BATCH, 1), generator=order)
        seeds = torch.randint(2**40, (BATCH,), generator=order)
        return {"video": videos[rows, first + torch.arange(PAIR)], "seed": seeds}

    learn(network, draw_pairs, steps=STEPS, lr=2e-3, weight_decay=0.05, warmup=0.1, clip_grad=1.0)

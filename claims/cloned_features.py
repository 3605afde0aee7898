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
DEMONSTRATIONS, HELD, TESTS = 30, 10, 40
CURVE = (50, 200, 800)
"""Steps of training after which a policy acts; each number is a training of its own, whose rate falls to zero."""
MIDDLE, PIXELS = 200, 300
KINDS = {"toto": "Toto's features", "mae": "VideoMAE's", "untrained": "an untrained network's"}

CLAIM = Claim(
    systems=("control.behaviour_cloning", "pretraining.toto", "pretraining.videomae"),
    finding=__doc__.strip(),
    paper="Rajasegaran et al. 2025: with DAgger, Toto-base learns four simulated tasks of two arms faster than "
    "MAE-base (plots of success over steps); with 240 cloned demonstrations of a real arm, MVP's features solve 75% "
    "of 16 trials and Toto-base's 63%. Xiao et al. 2022 (MVP): frozen features of MAE beat learning from pixels "
    "(plots).",
    here=f"Touching a thing on a table of 32 x 32 pixels (`demonstrations`, {TASK.steps} actions), from one frame "
    f"and the gripper's place. Toto on patches and VideoMAE, both of width 64 and depth 4, learn for {STEPS} steps "
    f"from pairs of frames of {VIDEOS} videos of an arm that moves at random; their last layers' means are frozen. "
    f"Policies clone {DEMONSTRATIONS} demonstrations, for {', '.join(map(str, CURVE))} steps of 128 frames; from "
    f"pixels, the network of Toto is trained with the policy, {PIXELS} steps of 64 frames. {TESTS} unseen tables; "
    f"errors on {HELD} unseen demonstrations.",
    baseline="The untrained network of Toto, frozen; the same trained from pixels; actions at random.",
    figures={
        **{
            f"{name} {steps}": Figure(says=f"tables solved after {steps} steps on {says}, %", digits=0)
            for name, says in KINDS.items()
            for steps in CURVE
        },
        **{name: Figure(says=f"mean over these on {says}, %") for name, says in KINDS.items()},
        **{
            f"{name} error": Figure(says=f"squared error of actions after {MIDDLE} steps on {says}", digits=3)
            for name, says in KINDS.items()
        },
        "pixels": Figure(says="tables solved from pixels, %", digits=0),
        "pixels error": Figure(says="squared error of actions from pixels", digits=3),
        "random": Figure(says="tables solved by random actions, %", digits=0),
    },
    expected=(
        above("toto", "untrained", "over training, Toto's features solve more tables than an untrained network's"),
        above("toto", "mae", "and more than VideoMAE's"),
        above("toto", "random", "and more than actions at random"),
        below("toto error", "untrained error", "their policy errs less than an untrained network's"),
        below("toto error", "mae error", "and less than VideoMAE's"),
    ),
    analysis="The order of the paper: frozen features of Toto solve about twice as many tables as an untrained "
    "network's, which gain nothing by more steps, in every seed. VideoMAE's, learnt in as many steps, are "
    "hardly above the untrained. A policy from pixels errs less by the end, and solves about as many as "
    "Toto's.",
    minutes=9,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    videos = play_of(seed)
    given, held = lessons(DEMONSTRATIONS, (seed, 0)), lessons(HELD, (seed, 1))
    toto = find("control.behaviour_cloning:table").objective.encoder
    mae = find("pretraining.videomae:tiny").objective
    mae = replace(mae, num_frames=PAIR, size=SIZE, patch_size=(2, 8, 8), width=64, depth=4, num_heads=2)
    networks = {"toto": toto, "mae": replace(mae, mask_ratio=0.75), "untrained": toto}
    found: dict[str, float] = {}
    for name, network in networks.items():
        torch.manual_seed(seed)
        whole = network.build()
        if name != "untrained":
            pretrain(whole, videos, seed)
        config = behaviour_cloning.BehaviourCloningConfig(encoder=network, layer=-1, norm="batch")
        for steps in CURVE:
            policy = policy_of(config, seed)
            policy.encoder.encoder.load_state_dict(whole.encoder.state_dict())
            clone(policy, given, steps=steps, seed=seed)
            found[f"{name} {steps}"] = solved(policy, TESTS, (seed, 9))
            if steps == MIDDLE:
                found[f"{name} error"] = error(policy, held)
        found[name] = sum(found[f"{name} {steps}"] for steps in CURVE) / len(CURVE)
    config = behaviour_cloning.BehaviourCloningConfig(encoder=toto, layer=-1, norm="batch", frozen=False)
    policy = policy_of(config, seed)
    clone_from_pixels(policy, given, steps=PIXELS, seed=seed)
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

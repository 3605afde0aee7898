"""DreamerV3's training step against NM512's ``dreamerv3-torch``, at equal sizes, in one process, alternating.

    git clone https://github.com/NM512/dreamerv3-torch FOLDER
    DREAMER=FOLDER python bench/dreamer.py                       # preset point, and size S on short sequences
    DREAMER=FOLDER python bench/dreamer.py --cases point --rounds 3

A step is all that one batch leads to: the world model's update, imagination from every state, the actor's update and
the critic's, with gradients clipped and the values that are logged. Both get the same sequences, as uint8 frames in
memory. Theirs is as it comes, without ``torch.compile``, as ours. Numbers of parameters are printed for both.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from filmstrip.systems.control import dreamer
from filmstrip.systems.control.dreamer import DreamerConfig
from loop_step import loop_step
from timing import alternate

Step = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """Sizes of the networks and of a batch."""

    config: DreamerConfig
    batch: int
    length: int


CASES = {
    "point": Case(replace(dreamer.point().objective, image_weight=1.0), batch=8, length=16),
    "size S, 2 x 16": Case(replace(dreamer.dmc().objective, action_dim=6), batch=2, length=16),
}


def sequences(case: Case) -> dict[str, Tensor]:
    """Drawn frames, actions and rewards of a batch."""
    generator = torch.Generator().manual_seed(0)
    shape, config = (case.batch, case.length), case.config
    first = torch.zeros(shape, dtype=torch.bool)
    first[:, 0] = True
    return {
        "video": torch.randint(256, (*shape, 3, config.size, config.size), dtype=torch.uint8, generator=generator),
        "action": torch.rand(*shape, config.action_dim, generator=generator) * 2 - 1,
        "reward": torch.rand(shape, generator=generator),
        "terminal": torch.zeros(shape, dtype=torch.bool),
        "first": first,
        "seed": torch.arange(case.batch),
    }


def ours(case: Case) -> tuple[Step, int]:
    """A step of the training loop, and the number of trained parameters."""
    objective, batch = case.config.build().train(), sequences(case)
    step = loop_step(objective, dreamer.dmc().optim, 100.0)
    return partial(step, batch), _trained(objective)


def theirs(case: Case) -> tuple[Step, int]:
    """The same of the published code."""
    folder = os.environ.get("DREAMER")
    if folder is None:
        sys.exit("give the folder of a clone of https://github.com/NM512/dreamerv3-torch: DREAMER=FOLDER")
    if folder not in sys.path:
        sys.path.append(folder)
    models, config, batch = importlib.import_module("models"), _config(case), sequences(case)
    space = SimpleNamespace(spaces={"image": SimpleNamespace(shape=(case.config.size, case.config.size, 3))})
    with contextlib.redirect_stdout(io.StringIO()):
        world = models.WorldModel(space, None, 0, config).requires_grad_(False)
        behaviour = models.ImagBehavior(config, world).requires_grad_(False)
    data = {
        "image": batch["video"].permute(0, 1, 3, 4, 2).contiguous().numpy(),
        "action": batch["action"].numpy(),
        "reward": batch["reward"].numpy(),
        "is_first": batch["first"].numpy(),
        "is_terminal": batch["terminal"].numpy(),
    }

    def reward(features: Tensor, states: dict[str, Tensor], actions: Tensor) -> Tensor:
        return world.heads["reward"](world.dynamics.get_feat(states)).mode()

    def step() -> None:
        start, _, _ = world._train(data)
        behaviour._train(start, reward)

    parts = (world, behaviour.actor, behaviour.value)
    return step, sum(p.numel() for part in parts for p in part.parameters())


def _config(case: Case) -> Any:
    """Its configuration ``dmc_vision``, with our sizes."""
    own = case.config
    frames = {"mlp_keys": "$^", "cnn_keys": "image", "act": "SiLU", "norm": True, "cnn_depth": own.channels}
    frames |= {"kernel_size": 4, "minres": 4, "mlp_layers": 1, "mlp_units": own.width}
    rates = {"lr": 3e-5, "eps": 1e-5, "grad_clip": 100.0, "layers": own.depth}
    head = {"layers": own.depth, "loss_scale": 1.0}
    return SimpleNamespace(
        device="cpu",
        precision=32,
        num_actions=own.action_dim,
        dyn_stoch=own.num_latents,
        dyn_discrete=own.latent_classes,
        dyn_deter=own.memory_dim,
        dyn_hidden=own.width,
        dyn_rec_depth=1,
        dyn_mean_act="none",
        dyn_std_act="sigmoid2",
        dyn_min_std=0.1,
        unimix_ratio=own.unimix,
        initial="learned",
        units=own.width,
        act="SiLU",
        norm=True,
        encoder={**frames, "symlog_inputs": True},
        decoder={**frames, "cnn_sigmoid": False, "image_dist": "mse", "vector_dist": "symlog_mse", "outscale": 1.0},
        reward_head={**head, "dist": "symlog_disc", "outscale": 0.0},
        cont_head={**head, "outscale": 1.0},
        grad_heads=["decoder", "reward", "cont"],
        kl_free=own.free_nats,
        dyn_scale=own.dynamics_weight,
        rep_scale=own.representation_weight,
        model_lr=1e-4,
        opt_eps=1e-8,
        grad_clip=100.0,
        weight_decay=0.0,
        opt="adam",
        actor={
            **rates,
            "dist": "normal",
            "std": "learned",
            "entropy": own.entropy,
            "unimix_ratio": own.unimix,
            "min_std": own.std[0],
            "max_std": own.std[1],
            "temp": 0.1,
            "outscale": 1.0,
        },
        critic={
            **rates,
            "dist": "symlog_disc",
            "outscale": 0.0,
            "slow_target": True,
            "slow_target_update": own.slow_every,
            "slow_target_fraction": own.slow_share,
        },
        reward_EMA=True,
        discount=own.discount,
        discount_lambda=own.return_lambda,
        imag_horizon=own.horizon,
        imag_gradient="dynamics",
    )


def _trained(objective: nn.Module) -> int:
    return sum(p.numel() for p in objective.parameters() if p.requires_grad)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print("| step | M parameters, ours / theirs | ours, ms | speed, dreamerv3-torch = 1 |")
    print("|---|---:|---:|---:|")
    for name in given.cases:
        torch.manual_seed(0)
        (one, size), (other, other_size) = ours(CASES[name]), theirs(CASES[name])
        # Of one thread the processor's time is the duration, without what other processes take meanwhile.
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        seconds = alternate({"ours": one, "theirs": other}, given.rounds, clock)
        print(
            f"| {name} | {size / 1e6:.2f} / {other_size / 1e6:.2f} | {1e3 * seconds['ours']:.0f} "
            f"| {seconds['theirs'] / seconds['ours']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""Presets: small ones in own environments, the publication's, and VIPER's."""

from __future__ import annotations

from dataclasses import replace

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.evals.returns import Returns
from filmstrip.rl.envs.environment import EnvironmentConfig
from filmstrip.rl.experience import Experience
from filmstrip.rl.reward_config import RewardConfig
from filmstrip.runs.config import Run
from filmstrip.systems.control.dreamer.model import DreamerConfig
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant

SMALL = {"memory_dim": 512, "width": 512, "depth": 2, "channels": 32}
XLARGE = {"memory_dim": 4096, "width": 1024, "depth": 5, "channels": 96}
"""Sizes S and XL of the publication."""


def tiny() -> Run:
    """``point`` at 32 x 32 pixels by small networks; trains in seconds on two CPU cores."""
    return Run(
        data=_data(
            Experience(
                env=EnvironmentConfig(name="point", size=32, max_steps=20), length=8, prefill=40, updates_per_step=0.5
            ),
            batch_size=8,
        ),
        objective=DreamerConfig(
            size=32,
            action_dim=2,
            channels=8,
            memory_dim=32,
            num_latents=8,
            latent_classes=8,
            width=32,
            depth=1,
            horizon=5,
        ),
        optim=AdamW(lr=1e-3, weight_decay=0.0, schedule=Constant()),
        train=Loop(length=Steps(100), clip_grad=100.0),
        evals=(Returns(episodes=2),),
    )


def tiny_bonus() -> Run:
    """The same with a bonus where an ensemble of networks disagrees."""
    run = tiny()
    return replace(run, objective=replace(run.objective, beta=1.0, ensemble_size=3))


def point() -> Run:
    """``point`` at 32 x 32 pixels, with its true reward: 4,000 steps in it, the first 500 at random, and an update
    for every second one. Frames have a quarter of the publication's pixels, and count four times as much."""
    run = tiny()
    return replace(
        run,
        data=_data(
            Experience(env=EnvironmentConfig(name="point", size=32), length=16, prefill=500, updates_per_step=0.5),
            batch_size=8,
        ),
        objective=DreamerConfig(
            size=32,
            action_dim=2,
            channels=8,
            memory_dim=96,
            num_latents=8,
            latent_classes=8,
            width=96,
            depth=2,
            horizon=10,
            discount=0.95,
            image_weight=4.0,
        ),
        optim=AdamW(lr=1e-3, weight_decay=0.0, schedule=Constant()),
        train=Loop(length=Steps(1_750), clip_grad=100.0, eval_every=250),
        evals=(Returns(),),
    )


def viper_point() -> Run:
    """The same by the likelihood of ``--reward RUN``, such as one of ``rewards.viper:point``, and a bonus."""
    run = point()
    return replace(
        run,
        data=replace(run.data, reads=replace(run.data.reads, reward=RewardConfig(unit="frame"))),
        objective=replace(run.objective, beta=1.0, ends=False, ensemble_size=5),
    )


def dmc() -> Run:
    """The publication's for the DeepMind Control Suite from pixels: size S, 512 steps learnt from for each that is
    made, 500,000 of these, each an action for two of the environment's."""
    return _published(
        Experience(
            env=EnvironmentConfig(name="dm_control/walker-walk", size=64, action_repeat=2),
            num_envs=4,
            length=64,
            prefill=0,
            updates_per_step=512 / (16 * 64),
        ),
        DreamerConfig(**SMALL),
        steps=250_000,
    )


def atari() -> Run:
    """The publication's for Atari: size XL, 64 steps learnt from for each of 50 million (200 million frames)."""
    return _published(
        Experience(env=_ATARI, num_envs=8, length=64, prefill=0, updates_per_step=64 / (16 * 64)),
        DreamerConfig(**XLARGE),
        steps=3_125_000,
    )


def atari_100k() -> Run:
    """The publication's for 100,000 steps of Atari: size S, 1024 steps learnt from for each."""
    return _published(
        Experience(env=_ATARI, length=64, prefill=0, updates_per_step=1.0), DreamerConfig(**SMALL), steps=100_000
    )


def viper_dmc() -> Run:
    """VIPER's for the DeepMind Control Suite (table E.3), by the likelihood of ``--reward RUN``, such as one of
    ``rewards.viper:dmc``, and a bonus; by the task's own reward with ``--reward.beta 0`` and without ``--reward``."""
    env = EnvironmentConfig(name="dm_control/walker-walk", size=64, action_repeat=2)
    return _viper(env, envs=4, network={**SMALL})


def viper_atari() -> Run:
    """VIPER's for Atari. Episodes do not end in imagination: rewards are below zero, and an end would be welcome.

    The table has the depth of 4 and the recurrent state, the channels are of size XL.
    """
    return _viper(_ATARI, envs=8, network={**XLARGE, "depth": 4})


def viper_rlbench() -> Run:
    """VIPER's for RLBench, whose environments are a class of your own (``--env my_module:MyTask``)."""
    return _viper(EnvironmentConfig(name="rlbench", size=64, max_steps=250), envs=8, network={**XLARGE, "depth": 4})


_ATARI = EnvironmentConfig(name="ALE/Pong-v5", size=64, action_repeat=4)


def _published(reads: Experience, network: DreamerConfig, *, steps: int) -> Run:
    return Run(
        data=_data(reads, batch_size=16),
        objective=network,
        optim=AdamW(
            lr=1e-4,
            weight_decay=0.0,
            eps=1e-8,
            phase_eps=(("actor", 1e-5), ("critic", 1e-5)),
            rates=(("actor", 0.3), ("critics", 0.3)),
            schedule=Constant(),
        ),
        train=Loop(
            length=Steps(steps),
            clip_grad=1000.0,
            phase_clip_grad=(("actor", 100.0), ("critic", 100.0)),
            eval_every=steps // 50,
            save_every=steps // 50,
        ),
        evals=(Returns(),),
    )


def _viper(env: EnvironmentConfig, *, envs: int, network: dict[str, int]) -> Run:
    reads = Experience(
        env=env,
        num_envs=envs,
        length=64,
        prefill=0,
        updates_per_step=64 / (16 * 64),
        reward=RewardConfig(unit="frame"),
    )
    objective = DreamerConfig(
        **network,
        dynamics_weight=0.4,
        representation_weight=0.2,
        discount=0.995,
        slow_every=50,
        slow_share=1.0,
        beta=1.0,
        ends=False,
    )
    return Run(
        data=_data(reads, batch_size=16),
        objective=objective,
        optim=AdamW(lr=1e-4, weight_decay=0.0, eps=1e-6, schedule=Constant()),
        train=Loop(length=Steps(62_500), clip_grad=100.0, eval_every=1_250, save_every=1_250),
        evals=(Returns(),),
    )


def _data(reads: Experience, batch_size: int) -> Data:
    size = reads.env.size
    return Data(
        reads=reads,
        clip=Clip(num_frames=reads.length, stride=1, size=size, short_side=(size, size)),
        augment=Augment(mirror=0.0),
        batch_size=batch_size,
        num_workers=0,
    )

"""Presets: the published training on robots, and going on from it on one's own."""

from __future__ import annotations

from dataclasses import replace

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.clips import Clips
from filmstrip.data.synthetic.pushing import Pushing
from filmstrip.evals.reaching import Reaching
from filmstrip.runs.config import Run
from filmstrip.systems.control.vjepa_ac.model import VJEPAACConfig
from filmstrip.systems.control.vjepa_ac.planning import CrossEntropy
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine, WarmupStableDecay


def tiny() -> Run:
    """An arm that pushes things, 64 x 64 pixels, and the encoder of ``pretraining.vjepa:tiny``, untrained unless
    ``--init`` names a run of it."""
    return Run(
        data=Data(
            synthetic=Pushing(num_train=32, num_test=8, num_frames=12, num_things=2),
            reads=Clips(states="gripper"),
            clip=Clip(num_frames=6, stride=1, size=64, short_side=(64, 64)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=VJEPAACConfig(
            width=96,
            depth=4,
            num_heads=3,
            num_frames=6,
            size=64,
            patch_size=(2, 8, 8),
            linear_init="glorot",
            predictor_width=96,
            predictor_depth=2,
            predictor_num_heads=3,
            action_dim=2,
            state_dim=2,
            planner=CrossEntropy(samples=32, elites=4, iterations=3, horizon=1, state_per_action=0.06),
            untrained_encoder=True,
        ),
        optim=AdamW(lr=1e-3, weight_decay=0.04),
        train=Loop(length=Steps(100)),
    )


def table() -> Run:
    """A thick arm on one table, 32 x 32 pixels, above an untrained encoder: learns to reach goals.

    Measured: 131 s of processor time, with making its videos and evaluating (``filmstrip train
    control.vjepa_ac:table``, one thread); 17 of 24 goals reached, none by random actions.
    """
    run = tiny()
    look = {"num_things": 1, "look": 5, "arm_width": 4.0}
    network = replace(
        run.objective,
        width=32,
        depth=2,
        num_heads=1,
        num_frames=3,
        size=32,
        patch_size=(2, 16, 16),
        planner=CrossEntropy(samples=32, elites=5, iterations=3, horizon=1, state_per_action=0.06),
    )
    return replace(
        run,
        data=replace(
            run.data,
            synthetic=Pushing(num_train=150, num_test=10, num_frames=16, size=32, **look),
            clip=Clip(num_frames=3, stride=1, size=32, short_side=(32, 32)),
            batch_size=32,
        ),
        objective=network,
        optim=AdamW(lr=2e-3, weight_decay=0.01, schedule=Cosine(warmup=0.1)),
        train=Loop(length=Steps(600)),
        evals=(Reaching(episodes=24, steps=4, **look),),
    )


def giant_droid() -> Run:
    """V-JEPA 2-AC on robots (DROID): ViT-g, 8 frames, 4 a second of a video of 60; ``--init`` V-JEPA 2's ViT-g.

    DROID's raw recordings are read as they are, the left camera's. Actions are changes of the gripper's position (m),
    of its rotation (rad) and of its opening from frame to frame of a clip; states are these. The planner moves
    position and opening alone.
    """
    return Run(
        data=Data(
            reads=Clips(states="pose", changes="pose"),
            clip=Clip(num_frames=8, stride=15, size=256, short_side=(256, 256)),
            augment=Augment(mirror=0.0),
            batch_size=256,
            num_workers=12,
        ),
        objective=VJEPAACConfig(
            width=1408,
            depth=40,
            num_heads=22,
            mlp_ratio=48 / 11,
            num_frames=8,
            size=256,
            action_dim=7,
            state_dim=7,
            planner=CrossEntropy(
                limits=(0.05, 0.05, 0.05, 0.0, 0.0, 0.0, 0.75), spreads=(0.05, 0.05, 0.05, 0.0, 0.0, 0.0, 1.0)
            ),
        ),
        optim=AdamW(
            lr=4.25e-4,
            weight_decay=0.04,
            schedule=WarmupStableDecay(warmup=Steps(4500), start=0.75 / 4.25, decay=Steps(4500)),
        ),
        train=Loop(length=Steps(94_500), precision="bfloat16", clip_grad=None, checkpoint=True),
    )


def large_own() -> Run:
    """On actions of one's own, of any size, above V-JEPA 2's released ViT-L (``--init vjepa2``), on one GPU: where to
    begin.

    A predictor of a quarter of the published depth, batches of 32, a peak rate of a fourth, 20,000 steps.
    """
    run = giant_droid()
    network = replace(
        run.objective,
        width=1024,
        depth=24,
        num_heads=16,
        mlp_ratio=4.0,
        predictor_depth=6,
        action_dim=0,
        state_dim=0,
        planner=CrossEntropy(),
    )
    return replace(
        run,
        data=replace(run.data, reads=Clips(), clip=replace(run.data.clip, stride=7), batch_size=32),
        objective=network,
        optim=replace(run.optim, lr=1e-4, schedule=WarmupStableDecay(warmup=0.05, decay=0.2)),
        train=replace(run.train, length=Steps(20_000), clip_grad=1.0, checkpoint=False),
    )

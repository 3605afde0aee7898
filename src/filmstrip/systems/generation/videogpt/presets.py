"""VideoGPT's presets, and VIPER's."""

from __future__ import annotations

from dataclasses import replace

from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.systems.generation.videogpt.model import VideoGPTConfig
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant, Cosine


def tiny() -> Run:
    """Motions at 32 x 32 pixels, from their class; trains in seconds on two CPU cores."""
    of_tokenizer = find("tokenizers.vqvae3d:tiny")
    return Run(
        data=of_tokenizer.data,
        objective=VideoGPTConfig(
            tokenizer=of_tokenizer.objective,
            untrained_tokenizer=True,
            num_frames=8,
            size=32,
            width=64,
            depth=4,
            num_heads=4,
            dropout=0.0,
            conditions=("label",),
            num_classes=8,
            condition_drop=0.1,
        ),
        optim=AdamW(lr=3e-3, weight_decay=0.0),
        train=Loop(length=Steps(100)),
    )


_BAIR = {
    "width": 512,
    "depth": 16,
    "num_heads": 4,
    "mlp_ratio": 4.0,
    "dropout": 0.2,
    "frames_depths": (3, 4, 6, 3),
    "frames_widths": (64, 128, 256, 240),
}


def _paper(tokenizer: str, *, steps: int, **network: object) -> Run:
    """The tokenizer's clips, the published sparse attention, batches of 32, Adam at 3e-4 (table A.2)."""
    of_tokenizer = find(f"tokenizers.vqvae3d:{tokenizer}")
    return Run(
        data=of_tokenizer.data,
        objective=VideoGPTConfig(
            tokenizer=of_tokenizer.objective,
            num_frames=of_tokenizer.objective.num_frames,
            size=of_tokenizer.objective.size,
            attention="blocks",
            **(_BAIR | network),
        ),
        optim=AdamW(lr=3e-4, weight_decay=0.0, schedule=Cosine(warmup=0.0)),
        train=Loop(length=Steps(steps)),
    )


def moving_mnist() -> Run:
    """Moving MNIST from its first frame: 4 x 16 x 16 codes of 512, a ResNet-18."""
    return _paper(
        "moving_mnist",
        steps=80_000,
        width=192,
        depth=8,
        mlp_ratio=2.0,
        dropout=0.1,
        conditions=("frames",),
        frames_depths=(2, 2, 2, 2),
    )


def bair() -> Run:
    """BAIR robot pushing, and RoboNet, from the first frame: 8 x 32 x 32 codes of 1024."""
    return _paper("bair", steps=150_000, conditions=("frames",))


def bair_actions() -> Run:
    """BAIR from the first frame and the robot's actions."""
    return _paper("bair", steps=150_000, conditions=("frames", "action"), action_dim=4)


def vizdoom() -> Run:
    """ViZDoom, without a condition."""
    return _paper("vizdoom", steps=150_000)


def vizdoom_health() -> Run:
    """ViZDoom's Health Gathering Supreme from its actions, 4 values each."""
    return _paper("vizdoom", steps=150_000, conditions=("action",), num_actions=4)


def vizdoom_battle() -> Run:
    """ViZDoom's Battle2 from its actions, 21 values each."""
    return _paper("vizdoom", steps=150_000, conditions=("action",), num_actions=21)


def ucf101() -> Run:
    """UCF-101, without a condition: 4 x 32 x 32 codes of 1024."""
    return _paper("ucf101", steps=200_000, width=1024, depth=20, num_heads=8)


def ucf101_128() -> Run:
    """UCF-101 at 128 x 128: as many codes, from the tokenizer of that size."""
    return _paper("ucf101_128", steps=200_000, width=1024, depth=20, num_heads=8)


def tgif() -> Run:
    """Tumblr GIF: UCF-101's network, trained for longer."""
    return _paper("tgif", steps=600_000, width=1024, depth=20, num_heads=8)


def _viper(tokenizer: str, *, width: int, frames: int = 16, stride: int = 1, classes: int = 0) -> Run:
    """VIPER: 64 x 64 frames, coded one by one, batches of 32, Adam at a constant 1e-4 (table E.2)."""
    of_tokenizer = find(f"tokenizers.vqgan:{tokenizer}")
    clip = replace(of_tokenizer.data.clip, num_frames=frames, stride=stride)
    return Run(
        data=replace(of_tokenizer.data, clip=clip, batch_size=32),
        objective=VideoGPTConfig(
            tokenizer=of_tokenizer.objective,
            num_frames=frames,
            width=width,
            depth=8,
            num_heads=8,
            attention="full",
            dropout=0.0,
            conditions=("label",) if classes else (),
            num_classes=classes,
        ),
        optim=AdamW(lr=1e-4, weight_decay=0.0, schedule=Constant()),
        train=Loop(length=Steps(500_000)),
    )


def viper_dmc() -> Run:
    """VIPER's for the DeepMind Control Suite: 16 tasks, 16 x 8 x 8 codes."""
    return _viper("viper_dmc", width=256, classes=16)


def viper_atari() -> Run:
    """VIPER's for Atari: 8 games, 16 x 16 x 16 codes."""
    return _viper("viper_atari", width=512, classes=8)


def viper_rlbench() -> Run:
    """VIPER's for one task of RLBench: 4 frames, every fourth, of 16 x 16 codes."""
    return _viper("viper_rlbench", width=256, frames=4, stride=4)


def viper_rlbench_multi() -> Run:
    """VIPER's for 34 tasks of RLBench."""
    return _viper("viper_rlbench", width=512, frames=4, stride=4, classes=34)

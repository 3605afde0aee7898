"""``filmstrip reward``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from filmstrip.bounds import CountOrZero
from filmstrip.commands.command import Command, Files, RunFolder
from filmstrip.rl.reward_config import RewardConfig


@dataclass(frozen=True, kw_only=True)
class Reward(Command):
    """Show what films earn by the likelihood of a video model: a curve under each film, a map of what is unlikely
    over it, and the mean; of two or more films also which one earns more, frame by frame.

    The model is a run with a likelihood of single frames: rewards.viper, rewards.byol_explore, generation.videogpt,
    generation.maskgit (in order), generation.teco or pretraining.toto.
    """

    usage = "RUN FILE... [--out FILE] [options]"
    run: RunFolder
    """Run folder of the video model."""
    files: Files
    """Films of whole episodes."""
    out: Path | None = None
    """Film to write (.mp4, .gif or .webp), or table of all frames' rewards (.csv, .parquet or .json)."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """Settings of the reward: windows, units, and more."""
    scale: CountOrZero = 0
    """Pixels of the written film for each pixel of the model's frames; 0 for about 256 in all."""

    def __call__(self) -> None:
        from filmstrip.commands.work.reward import reward_films

        reward_films(self)

"""``filmstrip dagger``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from filmstrip.bounds import Count, Seed, Share
from filmstrip.commands.command import Command, RunFolder


@dataclass(frozen=True, kw_only=True)
class Dagger(Command):
    """Correct a policy in the states that it brings about: it acts, an expert advises, and it learns anew (DAgger).

    For policies of tables (the set `demonstrations`). Each round plays episodes, writes them as videos with the
    expert's advice, and trains a new policy on all demonstrations and episodes so far, with the run's own settings.
    The same command resumes what was interrupted, or adds rounds.
    """

    usage = "RUN --out FOLDER [--rounds N] [--episodes N] [options]"
    run: RunFolder
    """Run folder of a policy that was trained on demonstrations (control.behaviour_cloning)."""
    out: Path
    """Folder of the rounds: round_1/rollouts (videos), round_1 (all that the policy learns from), round_1/run, ..."""
    rounds: Count = 3
    """Number of rounds."""
    episodes: Count = 20
    """Number of episodes that are played in a round."""
    expert_share: Share = 0.0
    """Probability that the expert acts in place of the policy at a step of the first round; in round n, its n-th
    power."""
    seed: Seed = 50_000
    """Seed of the first episode; the next ones follow, in all rounds."""

    def __call__(self) -> None:
        from filmstrip.commands.work.dagger import dagger

        dagger(self)

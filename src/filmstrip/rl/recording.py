"""Episodes as video files: each with its actions and true rewards beside it, and a table of all."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from filmstrip.errors import UserError
from filmstrip.files import write_csv, write_json
from filmstrip.rl.envs.environment import Environment
from filmstrip.rl.envs.own import Action
from filmstrip.rl.policies import Chooser
from filmstrip.video.write import LOSSLESS, write_video

FPS = 10
MANIFEST, NOTES = "manifest.csv", "dataset.json"
SUFFIX = ".actions.npz"


@dataclass
class Episode:
    """What happened in an episode of ``T`` pictures."""

    seed: int
    quality: float | None = None
    """Quality of the expert that acted, if one did."""
    frames: list[np.ndarray] = field(default_factory=list)
    """Pictures, each ``3 H W`` uint8."""
    actions: list[Action] = field(default_factory=list)
    """Actions, of which ``actions[t]`` led to ``frames[t]``; the first one does nothing."""
    rewards: list[float] = field(default_factory=list)
    """True rewards, of which ``rewards[t]`` came with ``frames[t]``; the first one is zero."""
    terminal: bool = False

    @property
    def value(self) -> float:
        """The return: the sum of all true rewards."""
        return float(np.sum(self.rewards))

    def video(self) -> torch.Tensor:
        """``T 3 H W`` uint8."""
        return torch.from_numpy(np.stack(self.frames))


def play(environment: Environment, choose: Chooser, seed: int, quality: float | None = None) -> Episode:
    """Act from the start of an episode, which depends on ``seed``, until it ends."""
    discrete = environment.actions.discrete
    nothing: Action = 0 if discrete else np.zeros(environment.actions.action_dim)
    episode = Episode(seed, quality, [environment.reset(seed)], [nothing], [0.0])
    while True:
        action = choose(environment, episode.frames[-1])
        step = environment.step(action)
        episode.frames.append(step.frame)
        episode.actions.append(action)
        episode.rewards.append(step.reward)
        if step.last:
            episode.terminal = step.terminal
            return episode


def write_episodes(
    episodes: Iterator[Episode] | Sequence[Episode],
    out: Path,
    environment: Environment,
    *,
    best: int | None = None,
    notes: Mapping[str, Any] | None = None,
) -> list[Episode]:
    """Write episodes to a folder: ``00000.mp4`` with ``00000.actions.npz`` (``actions``, ``reward``), and so on, a
    table of all of them (``manifest.csv``) and ``dataset.json``; returns those that were kept.

    Videos are lossless, for the likelihood of what a video was compressed to is not that of a live picture. With
    ``best`` only as many episodes are kept, those of the highest returns.

    Raises:
        UserError: the folder holds something else.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty: give a folder that is new")
    kept = list(episodes)
    if best is not None:
        kept = sorted(kept, key=lambda one: -one.value)[:best]
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, one in enumerate(kept):
        path = out / f"{number:05d}.mp4"
        write_video(path, one.video(), FPS, codec=LOSSLESS, crf=0, gop=16, preset="veryfast")
        kind = np.int64 if environment.actions.discrete else np.float32
        np.savez(
            path.with_name(path.stem + SUFFIX),
            actions=np.stack([np.asarray(action, kind) for action in one.actions]),
            reward=np.array(one.rewards, np.float32)[:, None],
        )
        quality = "" if one.quality is None else f"{one.quality:g}"
        rows.append(
            {
                "path": path.name,
                "actions": path.stem + SUFFIX,
                "return": f"{one.value:.6g}",
                "quality": quality,
                "steps": len(one.frames) - 1,
                "seed": one.seed,
                "terminal": int(one.terminal),
            }
        )
    write_csv(rows, out / MANIFEST)
    write_json({"directional": True, **environment.actions.notes, **(notes or {})}, out / NOTES)
    return kept


def returns_in(folder: Path) -> dict[str, float]:
    """The returns of recorded episodes, by the names of their files; nothing where the folder does not say.

    Raises:
        UserError: a return is not a number.
    """
    try:
        with (folder / MANIFEST).open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row.get("return")]
        return {str(row["path"]): float(row["return"]) for row in rows}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, KeyError) as error:
        raise UserError(f"{folder / MANIFEST}: returns are numbers beside paths: {error}") from None

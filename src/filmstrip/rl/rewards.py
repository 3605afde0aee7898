"""A video model as a reward: how likely the next frame is, by a model of what experts' videos look like (VIPER).

The reward of frame ``t`` is ``ln p(x_t | x_<t)`` with at most ``window`` - 1 frames before it (Escontrela et al.,
"Video Prediction Models as Rewards for Reinforcement Learning", 2023, equations 6.2 and 6.7 of the thesis); with
codes of a tokenizer, of its codes. It is the reward of the action that led to the frame. No window reaches over the
end of an episode. The published code sums the whole window instead (``joint``), which is the same as a sum of the
last ``window`` conditional rewards with growing contexts: a smoothed reward.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from filmstrip.data.blanking import Rectangle, blank
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference
from filmstrip.protocols import FrameScorer, Objective
from filmstrip.rl.reward_config import RewardConfig
from filmstrip.runs.config import Run
from filmstrip.runs.loading import load_classes, load_objective


class Rewards(NamedTuple):
    """What the frames of an episode earn."""

    values: np.ndarray
    """Reward of each frame, ``T`` float64; that of the first frame is no action's."""
    maps: np.ndarray
    """Log-likelihood of each position of each frame given the frames before, ``T h w`` float32, nats."""


class _Window(NamedTuple):
    """Frames of an episode that are scored in one pass."""

    episode: int
    frames: np.ndarray
    """Numbers of its frames, in steps of ``skip``."""
    wanted: np.ndarray
    """Places in ``frames`` of those that are rewarded."""
    start: int
    """Number of its phase's frames before it, which seeds the order of codes."""


class VideoReward:
    """The reward of a frozen video model, in evaluation mode and without gradients.

    Frames are coded once; windows are made of their codes, those of several episodes share a pass.

    Raises:
        UserError: the model has no likelihood of single frames, the window is longer than its clips, or it needs a
            class and none of its own is given.
    """

    def __init__(
        self,
        objective: Objective,
        config: RewardConfig,
        *,
        size: int,
        skip: int = 1,
        blanked: Sequence[Rectangle] = (),
        classes: Sequence[str] = (),
    ) -> None:
        if not isinstance(objective, FrameScorer):
            raise UserError(
                f"{type(objective).__name__} has no likelihood of single frames: rewards need a run of "
                "generation.videogpt, generation.maskgit (in order), generation.teco, pretraining.toto or "
                "rewards.byol_explore"
            )
        self.objective, self.config, self.size, self.blanked = objective, config, size, tuple(blanked)
        self.window = config.window or objective.num_frames
        self.skip = config.skip or skip
        if self.window > objective.num_frames:
            raise UserError(
                f"the model knows clips of up to {objective.num_frames} frames: a window has {self.window}"
            )
        self.label = _number_of(config.label, classes, "label" in objective.requires)
        self.device = device_of(objective)

    @classmethod
    def of_run(
        cls, folder: str | Path, config: RewardConfig, device: torch.device | str | None = None
    ) -> tuple[VideoReward, Run]:
        """The reward of a run's model, whose clips say how far frames are apart, how large, and what is blanked."""
        objective, run = load_objective(folder, device)
        clip = run.data.clip
        classes = load_classes(folder) if config.label is not None else ()
        reward = cls(objective, config, size=clip.size, skip=clip.stride, blanked=run.data.blanked, classes=classes)
        return reward, run

    def codes(self, frames: Tensor) -> Tensor:
        """What frames (``N 3 H W`` uint8) are rewarded by, ``N ...``, each from its frame alone."""
        if frames.shape[-2:] != (self.size, self.size):
            raise UserError(
                f"the reward's model has frames of {self.size} x {self.size} pixels, and these have "
                f"{frames.shape[-2]} x {frames.shape[-1]}: set the environment's size"
            )
        found = []
        with inference(self.objective):
            for part in blank(frames, self.blanked).split(256):
                found.append(self.objective.frame_codes(part[:, None].to(self.device))[:, 0])
        return torch.cat(found).clone()

    def of_films(self, films: Sequence[Tensor]) -> list[Rewards]:
        """The rewards of whole episodes, each ``T 3 H W`` uint8."""
        return self.of_codes([self.codes(film) for film in films])

    def of_codes(
        self, episodes: Sequence[Tensor], begins: Sequence[int] | None = None, dropped: Sequence[int] | None = None
    ) -> list[Rewards]:
        """The same of the codes of episodes, each ``T ...``; those of frames from ``begins`` on. ``dropped`` is how
        many frames came before those whose codes are given."""
        begins, dropped = begins or [0] * len(episodes), dropped or [0] * len(episodes)
        values = [np.zeros(len(codes) - begin) for codes, begin in zip(episodes, begins, strict=True)]
        maps: list[np.ndarray | None] = [None] * len(episodes)
        jobs = [
            window
            for number, (codes, begin) in enumerate(zip(episodes, begins))
            for window in self._windows(number, len(codes), begin, dropped[number])
        ]
        jobs.sort(key=lambda job: len(job.frames))  # short windows together: less padding
        for first in range(0, len(jobs), self.config.batch_size):
            part = jobs[first : first + self.config.batch_size]
            for job, found in zip(part, self._scored(part, episodes)):
                place = job.frames[job.wanted] - begins[job.episode]
                values[job.episode][place] = self._value(found, job.wanted)
                kept = maps[job.episode]
                if kept is None:
                    kept = np.zeros((len(values[job.episode]), *found.shape[1:]), np.float32)
                    maps[job.episode] = kept
                kept[place] = found[job.wanted]
        return [Rewards(v, np.zeros((0, 1, 1), np.float32) if m is None else m) for v, m in zip(values, maps)]

    def _windows(self, episode: int, length: int, begin: int, dropped: int) -> Iterator[_Window]:
        """The windows of an episode in which all its frames from ``begin`` on are rewarded.

        Which window a frame is rewarded in depends on its number alone, never on what was asked for before.
        """
        for phase in range(min(self.skip, length)):
            frames = np.arange(phase, length, self.skip)
            pending = np.flatnonzero(frames >= begin)
            stride = self.config.stride
            starts = np.maximum(0, -(-(pending - self.window + 1) // stride) * stride)
            for start in np.unique(starts):
                wanted = pending[starts == start]
                yield _Window(
                    episode, frames[start : wanted[-1] + 1], wanted - start, int(start) + dropped // self.skip
                )

    def _scored(self, jobs: Sequence[_Window], episodes: Sequence[Tensor]) -> np.ndarray:
        """The log-likelihoods of the positions in some windows, ``B T h w``; those after a window's end are of
        none."""
        length = max(len(job.frames) for job in jobs)
        rows = []
        for job in jobs:
            frames = np.pad(job.frames, (0, length - len(job.frames)), mode="edge")  # nothing looks ahead
            rows.append(episodes[job.episode][torch.from_numpy(frames).to(self.device)])
        seeds = torch.tensor([job.start + self.config.seed * 100_003 for job in jobs], device=self.device)
        batch: dict[str, Tensor] = {"seed": seeds}
        if self.label is not None:
            batch["label"] = torch.full((len(jobs),), self.label, device=self.device)
        fast = torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()
        with inference(self.objective), fast:
            return self.objective.frame_log_probs(torch.stack(rows), batch).float().cpu().numpy()

    def _value(self, found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """The rewards of some frames of a window from the log-likelihoods ``T h w`` of its frames."""
        frames, places = found.sum(axis=(1, 2), dtype=np.float64), float(found[0].size)
        if self.config.kind == "conditional":
            value = frames[wanted]
        else:
            value = frames.cumsum()[wanted] * self.window / (wanted + 1)
            places *= self.window
        if self.config.unit == "code":
            value = value / places
        if self.config.range is not None:
            low, high = self.config.range
            value = np.clip((value - low) / (high - low), 0, 1)
        return value


class RewardStream:
    """Rewards of several episodes while they go on: what comes is coded once, and kept as long as it is needed."""

    def __init__(self, reward: VideoReward, count: int) -> None:
        self.reward = reward
        self._codes: list[Tensor | None] = [None] * count
        self._dropped = [0] * count
        self._rewarded = [0] * count

    def begin(self, number: int) -> None:
        """An episode is over, and the next one begins: nothing of it counts any more."""
        self._codes[number], self._dropped[number], self._rewarded[number] = None, 0, 0

    def remember(self, number: int, film: Tensor, count: int) -> None:
        """Go on in an episode of which ``count`` frames have been rewarded, ``film`` being the last of them."""
        drop = count - len(film)
        span = self.reward.skip * self.reward.config.stride
        spare = -drop % span  # what is dropped is whole spans
        self._codes[number] = self.reward.codes(film[spare:])
        self._dropped[number], self._rewarded[number] = drop + spare, count

    def add(self, frames: Sequence[Tensor]) -> list[np.ndarray]:
        """The rewards of the next frames of each episode, each ``n 3 H W`` uint8 with ``n`` of any number.

        Each frame is coded, and rewarded, once; the frames of all episodes share passes of the model.
        """
        counts = [len(new) for new in frames]
        if sum(counts):
            coded = self.reward.codes(torch.cat(list(frames))).split(counts)
            for i, new in enumerate(coded):
                old = self._codes[i]
                self._codes[i] = new if old is None else torch.cat([old, new])
        episodes = [codes for codes in self._codes if codes is not None]
        numbers = [i for i, codes in enumerate(self._codes) if codes is not None]
        begins = [self._rewarded[i] - self._dropped[i] for i in numbers]
        found = [np.zeros(0)] * len(counts)
        dropped = [self._dropped[i] for i in numbers]
        for i, rewards in zip(numbers, self.reward.of_codes(episodes, begins, dropped)):
            found[i] = rewards.values
            self._rewarded[i] += len(rewards.values)
            self._forget(i)
        return found

    def _forget(self, number: int) -> None:
        """Drop frames that no window will need: as many as leave every window where it would have been."""
        codes, span = self._codes[number], self.reward.skip * self.reward.config.stride
        assert codes is not None, "it has frames"
        spare = len(codes) - (self.reward.window + self.reward.config.stride) * self.reward.skip
        drop = max(0, spare) // span * span
        if drop > span:
            self._codes[number] = codes[drop:]
            self._dropped[number] += drop


def _number_of(label: str | None, classes: Sequence[str], needed: bool) -> int | None:
    """The number of a class, by its name or as it is."""
    if not needed:
        if label is not None:
            raise UserError(f"reward.label is {label!r}, and the model has no classes as conditions: leave it out")
        return None
    if label in classes:
        return classes.index(label)
    if label is not None and label.isdecimal() and int(label) < max(1, len(classes)):
        return int(label)
    known = ", ".join(classes[:20]) or "those of its data"
    raise UserError(f"the model tells classes apart: give the class of the expert's videos, one of {known}")

"""Whether a reward by likelihood agrees with the true one: over episodes of all qualities, and step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from filmstrip.bounds import Count, NotEmpty, Seed, Share
from filmstrip.data.config import Data
from filmstrip.errors import UserError
from filmstrip.evals.frame_curves import name_of
from filmstrip.protocols import FrameScorer
from filmstrip.rl.films import ExpertFilms
from filmstrip.rl.policies import scripted
from filmstrip.rl.recording import play, returns_in
from filmstrip.rl.reward_config import RewardConfig
from filmstrip.rl.rewards import VideoReward
from filmstrip.runs.evaluation import Evaluation, Subject
from filmstrip.video.decode import read_video


class Trajectory(NamedTuple):
    """An episode that was seen."""

    film: Tensor
    """Its frames, ``T 3 H W`` uint8."""
    value: float
    """Its true return."""
    quality: float | None
    """Quality of the expert that acted, where it is known."""


@dataclass(frozen=True, kw_only=True)
class RewardAlignment(Evaluation):
    """Agreement of a video model's reward with true returns, over trajectories of graded quality.

    Trajectories are those of the data, if these are episodes that ``filmstrip rl record`` wrote; for the set
    ``ExpertFilms`` they are played in its first environment.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    trajectories: Count = 40
    """Number of trajectories."""
    qualities: Annotated[tuple[Share, ...], NotEmpty] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Qualities of the expert that plays them, in turn."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """Settings of the reward: windows, units, and more."""
    seed: Seed = 30_000
    """Seed of the first episode; the next ones follow."""

    def splits_of(self, data: Data) -> tuple[str, ...]:
        """None: whole episodes are read or played here."""
        return ()

    def check(self, subject: Subject) -> None:
        """The objective scores frames, and there are trajectories."""
        reward_of(subject, self.reward)
        if not isinstance(subject.data.synthetic, ExpertFilms) and not returns_in(subject.source.root):
            raise UserError(
                f"{subject.source.root} does not say what its episodes earned: give a folder that `filmstrip rl "
                "record --quality 0 0.5 1` wrote (--data FOLDER)"
            )

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield correlations over trajectories, areas under curves over steps, and the reward over time of each
        quality (``reward_0.5/frame_010``), with its standard deviation (``reward_std_0.5``).

        ``spearman`` and ``pearson`` are of the true return and the mean reward of a trajectory. ``auc_random``,
        ``auc_stationary`` and ``auc_shuffled`` are the probability that a step of an expert gets more than one of the
        worst trajectories, of an expert's film that stands still, and of one whose frames are shuffled.

        Raises:
            UserError: see :meth:`check`.
        """
        self.check(subject)
        reward = reward_of(subject, self.reward)
        seen = list(self.trajectories_of(subject))
        yield from alignment(reward, seen, self.seed)

    def trajectories_of(self, subject: Subject) -> Iterator[Trajectory]:
        """The episodes."""
        found = returns_in(subject.source.root)
        if found:
            size = (subject.data.clip.size,) * 2
            for sample in subject.source.samples[: self.trajectories]:
                film = read_video(sample.file(), size=size).video
                yield Trajectory(film, found[sample.name], None)
            return
        films = subject.data.synthetic
        assert isinstance(films, ExpertFilms), "it was checked"
        environment = films.environment(films.environments[0]).build()
        for number in range(self.trajectories):
            quality, rng = self.qualities[number % len(self.qualities)], np.random.default_rng((self.seed, number))
            one = play(environment, scripted("expert", rng, quality), self.seed + number)
            yield Trajectory(one.video(), one.value, quality)


def reward_of(subject: Subject, config: RewardConfig) -> VideoReward:
    """The objective as a reward.

    Raises:
        UserError: it has no likelihood of single frames, or the settings do not fit it.
    """
    clip, classes = subject.data.clip, subject.classes or subject.source.classes
    if config.label is None and "label" in subject.objective.requires and isinstance(subject.objective, FrameScorer):
        config = replace(config, label=next(iter(classes), None))
    return VideoReward(
        subject.objective, config, size=clip.size, skip=clip.stride, blanked=subject.data.blanked, classes=classes
    )


def alignment(reward: VideoReward, seen: Sequence[Trajectory], seed: int) -> Iterator[tuple[str, float]]:
    """The values of the protocol, for trajectories of which there are at least four."""
    if len(seen) < 4:
        raise UserError(f"an agreement over {len(seen)} trajectories says nothing: give four or more")
    rng = np.random.default_rng(seed)
    steps = [found.values[1:] for found in reward.of_films([one.film for one in seen])]
    returns = np.array([one.value for one in seen])
    means = np.array([values.mean() for values in steps])
    yield f"spearman/n{len(seen)}", correlation(ranks(returns), ranks(means))
    yield f"pearson/n{len(seen)}", correlation(returns, means)
    best, worst = _ends(seen, returns)
    experts = [seen[i].film for i in best]
    of_experts = np.concatenate([steps[i] for i in best])
    still = [film[int(rng.integers(len(film)))].expand_as(film) for film in experts]
    mixed = [film[torch.from_numpy(rng.permutation(len(film)))] for film in experts]
    yield "auc_random", auc(of_experts, np.concatenate([steps[i] for i in worst]))
    for name, films in (("stationary", still), ("shuffled", mixed)):
        others = np.concatenate([found.values[1:] for found in reward.of_films(films)])
        yield f"auc_{name}", auc(of_experts, others)
        yield f"reward_{name}", float(others.mean())
    yield "reward_expert", float(of_experts.mean())
    yield "reward_random", float(np.concatenate([steps[i] for i in worst]).mean())
    for quality in sorted({one.quality for one in seen if one.quality is not None}):
        group = [values for values, one in zip(steps, seen) if one.quality == quality]
        length = min(len(values) for values in group)
        table = np.stack([values[:length] for values in group])
        for t in range(length):
            yield name_of(f"reward_{quality:g}", t + 1), float(table[:, t].mean())
            yield name_of(f"reward_std_{quality:g}", t + 1), float(table[:, t].std())


def _ends(seen: Sequence[Trajectory], returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The experts' trajectories and the worst ones: of the ends of quality, or a quarter each by their returns."""
    qualities = np.array([np.nan if one.quality is None else one.quality for one in seen])
    if np.isfinite(qualities).all() and qualities.min() < qualities.max():
        return np.flatnonzero(qualities == qualities.max()), np.flatnonzero(qualities == qualities.min())
    order = returns.argsort()
    quarter = max(1, len(seen) // 4)
    return order[-quarter:], order[:quarter]


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, those of equal values being their mean."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[which]


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's correlation; not a number where one of them does not vary."""
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / scale if scale else float("nan")


def auc(above: np.ndarray, below: np.ndarray) -> float:
    """The probability that one of ``above`` is larger than one of ``below``, equal ones counting half (Mann and
    Whitney)."""
    rank = ranks(np.concatenate([above, below]))[: len(above)].sum()
    return float((rank - len(above) * (len(above) + 1) / 2) / (len(above) * len(below)))

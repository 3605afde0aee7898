"""Experience as a kind of sample: sequences of steps in environments that the trained agent itself acts in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from filmstrip.bounds import Count, CountOrZero, Rate
from filmstrip.data.actions import ActionSpace
from filmstrip.data.config import Clip, DataInfo
from filmstrip.data.kinds.clips import ACTION, VIDEO, Clips
from filmstrip.data.kinds.kind import Kind
from filmstrip.data.kinds.specification import COMMON, Specification, of
from filmstrip.data.sample import Sample, Source
from filmstrip.errors import UserError
from filmstrip.protocols import Batch
from filmstrip.rl.envs.environment import Environment, EnvironmentConfig
from filmstrip.rl.films import ExpertFilms
from filmstrip.rl.reward_config import RewardConfig
from filmstrip.runs.outside import import_allowed

if TYPE_CHECKING:
    from filmstrip.data.config import Data
    from filmstrip.rl.replay import ReplayStream


@dataclass(frozen=True, kw_only=True)
class Experience(Kind):
    """Sequences of consecutive steps from a replay, which grows while the agent acts.

    Entry ``t`` of a sequence has a frame, the action that led to it and what that earned. Where an episode begins,
    ``first`` is true, and the action and the reward of that entry are zero.
    """

    specification: ClassVar[Specification] = Specification(
        {
            "video": VIDEO,
            "action": ACTION,
            "reward": of(
                "B T",
                torch.float32,
                "reward of the action that led to each frame; not a number where films of experts determine it",
            ),
            "terminal": of("B T", torch.bool, "whether an episode is over for good with each frame"),
            "first": of("B T", torch.bool, "whether an episode begins with each frame"),
            "experts": of("B F C H W", torch.uint8, "frames of films of experts", when="films of experts are read"),
            **COMMON,
        }
    )

    env: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    """Environment that the agent acts in; on the command line ``--env NAME``."""
    num_envs: Count = 1
    """Number of copies of the environment, which act side by side."""
    reward_run: str | None = None
    """Run of a video model whose likelihood is the reward (``--reward RUN``); by default the environment's own
    reward."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """Settings of that reward: windows, units, and more."""
    experts: bool = False
    """Whether clips of films of experts (``data.path``; on the command line ``--experts FOLDER``) come with the
    sequences, as many and as long: for methods that learn a reward by telling the two apart."""
    length: Count = 4
    """Number of steps in a sequence."""
    prefill: CountOrZero = 1000
    """Number of steps with random actions before the first batch."""
    updates_per_step: Rate = 1.0
    """Number of batches for each step in an environment."""
    capacity: Count = 1_000_000
    """Number of steps that the replay holds; the oldest ones make room for new ones."""

    def open(self, data: Data) -> ExperienceSource:
        """The environment.

        Raises:
            UserError: there is none of this name, or agents cannot act in it.
        """
        environment = self.make()
        actions = environment.actions
        environment.close()
        sample = ExperienceSample(path=self.env.name, name=self.env.name, split=data.train_split)
        root = Path(self.env.name)
        return ExperienceSource(
            root=root,
            classes=(),
            samples=(sample,),
            directional=True,
            actions=actions,
            size=self.env.size,
            has_films=self.experts,
        )

    def make(self) -> Environment:
        """A copy of the environment; a person's own code only where that was allowed."""
        return self.env.build(import_allowed)

    def films(self, data: Data) -> tuple[Source, Data]:
        """The films of experts, and how clips of them are read: as frames of the environment look, and no labels.

        Raises:
            UserError: there are none, or they are no videos, or parts of their frames alone are to be blanked.
        """
        if data.path is None and not data.mixture and data.synthetic is None:
            raise UserError("there are no films of experts to learn from: give their folder (--experts FOLDER)")
        own = data.synthetic if data.path is None and not data.mixture else None
        env = self.env
        if isinstance(own, ExpertFilms) and (env.name not in own.environments or env.size != own.size):
            raise UserError(
                f"films of experts in {', '.join(own.environments)} at {own.size} x {own.size} pixels are none of "
                f"{env.name} at {env.size} x {env.size}: give your own (--experts FOLDER)"
            )
        if data.blanked:
            raise UserError(
                "data.blanked would blank the experts' frames and not the agent's, which would tell them apart: use "
                "objective.blanked, which blanks both"
            )
        from filmstrip.data.sources import open_source  # which knows every kind of sample

        size = self.env.size
        clip = Clip(num_frames=self.length, stride=1, size=size, short_side=(size, size))
        data = replace(data, reads=Clips(actions=False), clip=clip, clips_per_video=1)
        source = open_source(data)
        if source.kind is not Clips:
            raise UserError(f"{source.root} holds {source.kind.__name__}, and films of experts are videos")
        return source, data

    def sizes(self, data: Data, network: Any) -> dict[str, int]:
        """Sizes of a sequence."""
        return {
            "T": self.length,
            "F": self.length if self.experts else 0,
            "C": 3,
            "H": self.env.size,
            "W": self.env.size,
            "A": getattr(network, "action_dim", 0),
        }

    def told_sizes(self, data: Data, info: ExperienceInfo) -> dict[str, int]:
        """The same, with the environment's actions."""
        return self.sizes(data, None) | {"A": info.action_dim}

    def shown(self, data: Data) -> str:
        """Length and size of a sequence."""
        return f"sequences of {self.length} frames of {self.env.size} x {self.env.size} pixels"

    @staticmethod
    def example_info(sizes: Mapping[str, int], **told: Any) -> ExperienceInfo:
        """See :meth:`Kind.example_info`."""
        return ExperienceInfo(**told, action_dim=sizes.get("A", 0), size=sizes.get("H", 0))

    @staticmethod
    def example(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
        """A bright square that moves as the action says, and earns the more the farther right it is."""
        b, t, h, w = (sizes[letter] for letter in "BTHW")
        action = torch.rand(b, t, max(1, sizes.get("A", 2)), generator=generator) * 2 - 1
        action[:, 0] = 0
        place = (torch.rand(b, 1, generator=generator) + 0.2 * action[..., 0].cumsum(dim=1)).clamp(0, 0.9)
        column = torch.arange(w) / w
        bright = ((column - place[..., None]).abs() < 0.1).float() * 200 + 20
        video = bright[:, :, None, None, :].expand(b, t, 3, h, w).byte()
        first = torch.zeros(b, t, dtype=torch.bool)
        first[:, 0] = True
        experts = {}
        if frames := sizes.get("F", 0):  # who moves evenly
            place = torch.rand(b, 1, generator=generator) * 0.4 + 0.5 * torch.arange(frames) / frames
            bright = ((column - place[..., None]).abs() < 0.1).float() * 200 + 20
            experts = {"experts": bright[:, :, None, None, :].expand(b, frames, 3, h, w).byte().contiguous()}
        return {
            **experts,
            "video": video.contiguous(),
            "action": action,
            "reward": place,
            "terminal": torch.zeros(b, t, dtype=torch.bool),
            "first": first,
            "seed": torch.arange(b),
            "name": [f"row {i}" for i in range(b)],
            "index": torch.arange(b),
            "span": torch.tensor([[0.0, float(t)]] * b, dtype=torch.float64),
        }


@dataclass(frozen=True, kw_only=True)
class ExperienceInfo(DataInfo):
    """Properties of an environment that agents need."""

    action_dim: int = 0
    """Dimension of a continuous action; zero if actions are discrete."""
    num_actions: int = 0
    """Number of discrete actions; zero if they are continuous."""
    size: int = 0
    """Height and width of frames, pixels."""


@dataclass(frozen=True, kw_only=True)
class ExperienceSample(Sample):
    """The environment in place of files: batches are made by acting (:class:`~filmstrip.rl.replay.ReplayStream`)."""

    kind: ClassVar[type[Kind]] = Experience


@dataclass(frozen=True, kw_only=True)
class ExperienceSource(Source):
    """An environment."""

    kind: ClassVar[type[Kind]] = Experience

    size: int
    """Height and width of frames, pixels."""
    has_films: bool = False
    """Whether films of experts are read, too."""

    @property
    def gives(self) -> frozenset[str]:
        """Keys that batches have."""
        return super().gives - ({"experts"} if not self.has_films else set())

    def info(self, train_split: str) -> ExperienceInfo:
        """What agents need to know of it."""
        actions = self.actions or ActionSpace()
        return ExperienceInfo(
            **self.told(train_split), action_dim=actions.action_dim, num_actions=actions.num_actions, size=self.size
        )

    def loader(self, data: Data, *, seed: int, rank: int = 0, world: int = 1, accumulate: int = 1) -> ReplayStream:
        """The replay, which acts by what is trained."""
        from filmstrip.data.reading.loader import TrainLoader
        from filmstrip.rl.replay import ReplayStream

        assert isinstance(data.reads, Experience), "it opened this source"
        share = {"seed": seed, "rank": rank, "world": world, "accumulate": accumulate}
        films = None
        if self.has_films:
            source, settings = data.reads.films(data)
            films = TrainLoader(source, settings, **share)
        return ReplayStream(data.reads, data.batch_size, films=films, **share)

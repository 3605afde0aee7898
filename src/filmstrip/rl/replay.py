"""The replay: a stream of batches that steps environments between them, labels what comes, and serves sequences.

The training loop takes batches from it as from files. Before each batch the agent acts until ``updates_per_step``
is met; new frames are rewarded once, all environments' in one pass; and a batch of sequences is drawn, uniformly over
all steps that are held. Everything random depends on the seed and on counts alone.

Saved with a run (``replay/``): experience in shards of :data:`SHARD` steps, uint8 frames with what belongs to them,
which are written once and never changed; and, for each saved step, counts, the environments' and the agent's state.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from filmstrip.data.actions import ActionSpace
from filmstrip.data.reading.order import derive_seed
from filmstrip.errors import UserError
from filmstrip.files import write_csv, write_json, write_tensors
from filmstrip.inference import device_of, inference
from filmstrip.protocols import Agent, Batch, Objective
from filmstrip.rl.experience import Experience
from filmstrip.rl.policies import random_action
from filmstrip.rl.rewards import RewardStream, VideoReward

if TYPE_CHECKING:
    from filmstrip.data.reading.dataset import Unreadable
    from filmstrip.data.reading.loader import TrainLoader

SHARD = 256
"""Steps of one environment in a file."""
KEPT = 2
"""Saved steps to which training can go back."""
FOLDER = "replay"

Entries = dict[str, np.ndarray]


class Track:
    """All that happened in one environment, episode after episode: entry by entry, the oldest shards dropped."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.count = 0
        """Entries since the beginning; those of :attr:`oldest` and later are held."""
        self._shards: dict[int, Entries] = {}

    @property
    def oldest(self) -> int:
        """The first entry that is held."""
        return min(self._shards, default=0) * SHARD

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append an entry, in whose ``reward`` what is unknown yet is not a number."""
        number, place = divmod(self.count, SHARD)
        if number not in self._shards:
            self._shards[number] = {
                key: np.zeros((SHARD, *np.shape(value)), np.asarray(value).dtype) for key, value in entry.items()
            }
        for key, value in entry.items():
            self._shards[number][key][place] = value
        self.count += 1
        while self.count - self.oldest > self.capacity + SHARD:
            del self._shards[min(self._shards)]

    def set(self, key: str, start: int, values: np.ndarray) -> None:
        """Fill in what has become known of entries from ``start`` on."""
        for number, value in enumerate(values, start):
            self._shards[number // SHARD][key][number % SHARD] = value

    def get(self, key: str, start: int, end: int) -> np.ndarray:
        """Values of entries ``start`` to ``end``."""
        parts = []
        for number in range(start // SHARD, (end - 1) // SHARD + 1):
            low, high = max(start - number * SHARD, 0), min(end - number * SHARD, SHARD)
            parts.append(self._shards[number][key][low:high])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def write(self, folder: Path, step: int, needed: int) -> None:
        """Write the shards that are full and not written yet, and what there is of the last one as of ``step``;
        remove those before the entry ``needed``."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, entries in self._shards.items():
            count = min(SHARD, self.count - number * SHARD)
            path = folder / (f"{number:07d}.safetensors" if count == SHARD else f"part-{step}.safetensors")
            if count and not (count == SHARD and path.exists()):
                write_tensors({key: torch.from_numpy(value[:count].copy()) for key, value in entries.items()}, path)
        for path in folder.glob("[0-9]*.safetensors"):
            if int(path.stem) * SHARD < needed:
                path.unlink()

    def read(self, folder: Path, step: int, count: int) -> None:
        """Go back to the ``count`` entries of a saved step.

        Raises:
            UserError: a shard is missing or damaged.
        """
        self._shards, self.count = {}, count
        for number in range(max(0, -(-(count - self.capacity - SHARD) // SHARD)), -(-count // SHARD)):
            whole = (number + 1) * SHARD <= count
            path = folder / (f"{number:07d}.safetensors" if whole else f"part-{step}.safetensors")
            try:
                found = load_file(path)
            except Exception as error:
                raise UserError(f"{path} is missing or damaged, and the run cannot go on: {error}") from None
            entries = {}
            for key, value in found.items():
                entries[key] = np.zeros((SHARD, *value.shape[1:]), value.numpy().dtype)
                entries[key][: len(value)] = value.numpy()
            self._shards[number] = entries
        for path in folder.glob("[0-9]*.safetensors"):  # of what happened later, and is to happen again
            if (int(path.stem) + 1) * SHARD > count:
                path.unlink()


@dataclass
class _Tally:
    """What the episode that is going on has earned."""

    steps: int = 0
    true: float = 0.0
    reward: float = 0.0


@dataclass
class _Progress:
    """Counts of a stream."""

    steps: int = 0
    """Steps in all environments together."""
    labelled: list[int] = field(default_factory=list)
    """Entries of each environment whose rewards are known."""
    episodes: list[dict[str, Any]] = field(default_factory=list)
    """Episodes that are over: step of the end, environment, length, true return, sum of rewards (empty where these
    are never those of an episode, but of the moment), whether terminal."""


class ReplayStream:
    """A :class:`~filmstrip.train.loop.BatchStream` of sequences that the trained agent itself brings about.

    Each process has its own environments, replay, and share of a batch.
    """

    steps_per_epoch = 1.0
    """There are no passes over the data: lengths of training are in steps."""

    def __init__(
        self,
        config: Experience,
        batch_size: int,
        *,
        seed: int,
        films: TrainLoader | None = None,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
    ) -> None:
        """``films`` are those of experts, whose clips go with the sequences."""
        if batch_size % (world * accumulate):
            raise UserError(f"data.batch_size is {batch_size}, and {world} processes x {accumulate} parts share it")
        self.config, self.seed = config, derive_seed(seed, "replay", rank)
        self.rows, self.accumulate = batch_size // (world * accumulate), accumulate
        self.rank, self.films = rank, films
        self.environments = [config.make() for _ in range(config.num_envs)]
        self.actions: ActionSpace = self.environments[0].actions
        self.tracks = [Track(-(-config.capacity // config.num_envs)) for _ in self.environments]
        self.progress = _Progress(labelled=[0] * config.num_envs)
        self._tallies = [_Tally() for _ in self.environments]
        self._begins = [True] * config.num_envs
        self._memory: dict[str, Tensor] | None = None
        self._agent: Objective | None = None
        self._rewards: RewardStream | None = None
        self._folder: Path | None = None
        self._needed: list[list[int]] = []
        """Oldest entries of the environments at the last saved steps, to which training may go back."""

    def begin(self, objective: Objective, folder: Path) -> None:
        """The agent that acts, where it is trained, and the folder of its run.

        Raises:
            UserError: it does not act, or the reward's model cannot be used.
        """
        if not isinstance(objective, Agent):
            raise UserError(f"{type(objective).__name__} does not act in environments: train a system of control")
        if self.films is not None and "experts" not in objective.requires:
            raise UserError(
                f"{type(objective).__name__} learns by rewards and not from films of experts: leave out "
                "data.reads.experts, or train control.amp"
            )
        if self.config.reward_run is not None and self.films is not None:
            raise UserError(
                f"{type(objective).__name__} has its reward from films of experts: leave out --reward "
                f"{self.config.reward_run}"
            )
        self._agent, self._folder = objective, folder / FOLDER
        if self.config.reward_run is not None:
            reward, _ = VideoReward.of_run(self.config.reward_run, self.config.reward, device_of(objective))
            if reward.size != self.config.env.size:
                raise UserError(
                    f"{self.config.reward_run} rewards frames of {reward.size} x {reward.size} pixels, and the "
                    f"environment's have {self.config.env.size}: set --data.reads.env.size {reward.size}"
                )
            self._rewards = RewardStream(reward, self.config.num_envs)

    def close(self) -> None:
        """End the environments, and the reading of films."""
        for environment in self.environments:
            environment.close()
        if self.films is not None:
            self.films.close()

    @property
    def unreadable(self) -> list[Unreadable]:
        """The films that could not be read completely so far."""
        return [] if self.films is None else self.films.unreadable

    def stream(self, start: int) -> Iterator[Batch]:
        """Batches from optimiser step ``start`` on; of what was saved at that step, if it is above zero.

        Raises:
            UserError: nothing was saved at that step.
        """
        if start:
            self._load(start)
        films = None if self.films is None else self.films.stream(start)
        for step in range(start, 2**62):
            self._act_until(self.config.prefill + int((step + 1) / self.config.updates_per_step))
            self._label()
            for part in range(self.accumulate):
                batch = self._batch(step, part)
                yield batch if films is None else {**batch, "experts": next(films)["video"]}

    def _act_until(self, steps: int) -> None:
        """Act in all environments until there were so many steps, and until a sequence can be drawn."""
        while self.progress.steps < steps or not any(
            track.count - track.oldest > self.config.length for track in self.tracks
        ):
            self._act()

    def _act(self) -> None:
        """One step in each environment; in one that begins, its first frame instead."""
        for i, environment in enumerate(self.environments):
            if self._begins[i]:
                seed = derive_seed(self.seed, "episode", i, self.tracks[i].count)
                self._add(i, environment.reset(seed), self._nothing(), 0.0, terminal=False, first=True)
                self._tallies[i] = _Tally()
        actions = self._decide()
        for i, environment in enumerate(self.environments):
            self._begins[i] = False
            step = environment.step(actions[i])
            self._add(i, step.frame, actions[i], step.reward, terminal=step.terminal, first=False)
            tally = self._tallies[i]
            tally.steps, tally.true = tally.steps + 1, tally.true + step.reward
            self.progress.steps += 1
            if step.last:
                self._label()  # before the next episode begins
                self._end(i, terminal=step.terminal)

    def _end(self, number: int, *, terminal: bool) -> None:
        tally, track = self._tallies[number], self.tracks[number]
        start = track.count - tally.steps
        held = max(start, track.oldest)
        reward = round(float(track.get("reward", held, track.count).sum()), 6)
        self.progress.episodes.append(
            {
                "step": self.progress.steps,
                "env": number,
                "steps": tally.steps,
                "true_return": round(tally.true, 6),
                "reward": reward if self.films is None else "",
                "terminal": int(terminal),
            }
        )
        self._begins[number] = True
        if self._rewards is not None:
            self._rewards.begin(number)

    @property
    def _tells_reward(self) -> bool:
        """Whether the environment's own reward is what the agent learns by; otherwise it never sees it."""
        return self._rewards is None and self.films is None

    def _nothing(self) -> Any:
        return 0 if self.actions.discrete else np.zeros(self.actions.action_dim)

    def _decide(self) -> list[Any]:
        """The actions of all environments: at random at first, then the agent's."""
        counts = [track.count for track in self.tracks]
        if self.progress.steps < self.config.prefill:
            return [
                random_action(environment, np.random.default_rng(derive_seed(self.seed, "random", i, counts[i])))
                for i, environment in enumerate(self.environments)
            ]
        agent = self._agent
        assert agent is not None and isinstance(agent, Agent), "it was begun"
        device = device_of(agent)
        frames = np.stack([track.get("frame", count - 1, count)[0] for track, count in zip(self.tracks, counts)])
        first = torch.tensor([bool(t.get("first", n - 1, n)[0]) for t, n in zip(self.tracks, counts)])
        if self._memory is None:
            first[:] = True  # what happened before it was asked is not in its memory
        seeds = torch.tensor([derive_seed(self.seed, "act", i, count) for i, count in enumerate(counts)])
        with inference(agent):
            action, memory = agent.decide(
                torch.from_numpy(frames).to(device), self._memory, first.to(device), seed=seeds.to(device)
            )
        self._memory = {key: value.clone() for key, value in memory.items()}
        return list(action.float().cpu().numpy()) if not self.actions.discrete else action.tolist()

    def _add(
        self, number: int, frame: np.ndarray, action: Any, reward: float, *, terminal: bool, first: bool
    ) -> None:
        kind = np.int64 if self.actions.discrete else np.float32
        self.tracks[number].add(
            {
                "frame": frame,
                "action": np.asarray(action, kind),
                "reward": np.float32(reward if self._tells_reward or first else np.nan),
                "true_reward": np.float32(reward),
                "terminal": np.bool_(terminal),
                "first": np.bool_(first),
            }
        )

    def _label(self) -> None:
        """Reward what is new, all environments' frames in one pass of the model; nothing is rewarded twice."""
        starts = self.progress.labelled
        counts = [track.count for track in self.tracks]
        if self._rewards is not None and starts != counts:
            new = [
                torch.from_numpy(track.get("frame", start, count).copy())
                if count > start
                else torch.zeros(0, 3, self.config.env.size, self.config.env.size, dtype=torch.uint8)
                for track, start, count in zip(self.tracks, starts, counts)
            ]
            for track, start, found in zip(self.tracks, starts, self._rewards.add(new)):
                if len(found):
                    first = track.get("first", start, start + len(found))
                    track.set("reward", start, np.where(first, 0, found))
        self.progress.labelled = counts

    def _batch(self, step: int, part: int) -> Batch:
        """Sequences of consecutive entries of one environment, drawn uniformly over the entries that they end with.

        None ends where an episode begins: the last entry of a sequence always is a step.
        """
        length, rng = self.config.length, np.random.default_rng(derive_seed(self.seed, "batch", step, part))
        lows = np.array([track.oldest + length - 1 for track in self.tracks])
        sizes = np.maximum(0, np.array([track.count for track in self.tracks]) - lows)
        edges = sizes.cumsum()
        rows: list[tuple[int, int]] = []
        while len(rows) < self.rows:
            drawn = int(rng.integers(edges[-1]))
            number = int(np.searchsorted(edges, drawn, side="right"))
            last = int(lows[number] + drawn - (edges[number] - sizes[number]))
            if not self.tracks[number].get("first", last, last + 1)[0]:
                rows.append((number, last))
        entries = {
            name: np.stack([self.tracks[i].get(key, last + 1 - length, last + 1) for i, last in rows])
            for name, key in (
                ("video", "frame"),
                ("action", "action"),
                ("reward", "reward"),
                ("terminal", "terminal"),
                ("first", "first"),
            )
        }
        seeds = [derive_seed(self.seed, "row", step, part, row) for row in range(self.rows)]
        return {
            **{name: torch.from_numpy(value) for name, value in entries.items()},
            "seed": torch.tensor(seeds),
            "name": [f"environment {i}, step {last}" for i, last in rows],
            "index": torch.tensor([i for i, _ in rows]),
            "span": torch.tensor([[last + 1.0 - length, float(last)] for _, last in rows], dtype=torch.float64),
        }

    def _place(self) -> Path:
        assert self._folder is not None, "it was begun"
        return self._folder if self.rank == 0 else self._folder / f"process-{self.rank}"

    def save(self, step: int) -> None:
        """Write all that going on from after optimiser step ``step`` needs."""
        folder = self._place()
        folder.mkdir(parents=True, exist_ok=True)
        self._needed = [*self._needed[1 - KEPT :], [track.oldest for track in self.tracks]]
        for number, track in enumerate(self.tracks):
            track.write(folder / f"env-{number}", step, self._needed[0][number])
        write_tensors(self._memory or {"none": torch.zeros(1)}, folder / f"memory-{step}.safetensors")
        state = {
            "steps": self.progress.steps,
            "labelled": self.progress.labelled,
            "counts": [track.count for track in self.tracks],
            "begins": self._begins,
            "tallies": [vars(tally) for tally in self._tallies],
            "environments": [environment.state_dict() for environment in self.environments],
            "crashes": sum(environment.crashes for environment in self.environments),
            "episodes": self.progress.episodes,
        }
        write_json(state, folder / f"state-{step}.json")
        write_csv(self.progress.episodes, folder / "episodes.csv", list(EPISODE))
        steps = sorted(int(path.stem.partition("-")[2]) for path in folder.glob("state-*.json"))
        for old in [other for other in steps if other > step] + [other for other in steps if other <= step][:-KEPT]:
            for path in (*folder.glob(f"*-{old}.*"), *folder.glob(f"env-*/part-{old}.*")):
                path.unlink()

    def _load(self, step: int) -> None:
        """Go back to what was saved after a step.

        Own environments go on within their episodes; of others the episode is left, and the next one begins.
        """
        folder = self._place()
        try:
            state = json.loads((folder / f"state-{step}.json").read_text(encoding="utf-8"))
            memory = load_file(folder / f"memory-{step}.safetensors")
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} has no replay of step {step}, and the run cannot go on: {error}") from None
        self.progress = _Progress(state["steps"], state["labelled"], state["episodes"])
        device = device_of(self._agent) if self._agent is not None else torch.device("cpu")
        self._memory = None if "none" in memory else {key: value.to(device) for key, value in memory.items()}
        self._begins = state["begins"]
        self._tallies = [_Tally(**tally) for tally in state["tallies"]]
        for number, (environment, saved) in enumerate(zip(self.environments, state["environments"], strict=True)):
            track = self.tracks[number]
            track.read(folder / f"env-{number}", step, state["counts"][number])
            if self._begins[number]:
                continue
            if saved is None:
                self._end(number, terminal=False)
                continue
            environment.load_state_dict(saved)
            if self._rewards is not None:
                start = max(track.count - self._tallies[number].steps - 1, track.oldest)
                film = torch.from_numpy(track.get("frame", start, track.count).copy())
                self._rewards.remember(number, film, self._tallies[number].steps + 1)
        self._needed = [[track.oldest for track in self.tracks]]


EPISODE = ("step", "env", "steps", "true_return", "reward", "terminal")
"""Columns of ``replay/episodes.csv``."""

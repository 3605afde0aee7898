"""DAgger: rounds of acting, being advised and learning anew, each an ordinary run on an ordinary folder of videos."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from filmstrip.bounds import Count, Seed, Share, check_numbers
from filmstrip.commands.dagger import Dagger
from filmstrip.commands.stopping import keeping
from filmstrip.data.config import Data, Synthetic
from filmstrip.data.kinds.clips import Clips
from filmstrip.data.sample import Source
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.demonstrations import Chooser, Episode, TableTask, notes_of, play
from filmstrip.data.synthetic.generated import NOTES, generate_once, write_videos
from filmstrip.distributed import process
from filmstrip.errors import UserError
from filmstrip.evals.success import Success, acting, policy_of, task_of
from filmstrip.files import write_csv, write_json
from filmstrip.inference import device_of
from filmstrip.protocols import Objective
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.runs.contents import history
from filmstrip.runs.frozen import fingerprint_of
from filmstrip.runs.loading import load_objective

MANIFEST = "manifest.csv"
FPS = 10


@dataclass(frozen=True, kw_only=True)
class Rollouts(Synthetic):
    """Episodes in which a policy acts, and the expert says at each frame what it would have done."""

    policy: str
    """Fingerprint of the policy's weights."""
    task: TableTask
    episodes: Count
    expert_share: Share
    size: Count
    seed: Seed

    def __post_init__(self) -> None:
        check_numbers(self)

    def played(self, out: Path, objective: Objective) -> Path:
        """Play the episodes and write them as ``train/*.mp4`` in ``out``, unless they are there; return the folder.

        Raises:
            UserError: ``out`` holds something else, such as episodes of another policy.
        """

        def write(folder: Path) -> None:
            (folder / "train").mkdir()
            begun = [self.task.begin(self.seed + i, self.size) for i in range(self.episodes)]
            recordings = play(begun, self._mixed(acting(objective, device_of(objective))))
            paths = (folder / "train" / f"{i:05d}.mp4" for i in range(self.episodes))
            write_videos(lambda recording, path: recording.write(path, FPS), zip(recordings, paths))

        return generate_once(self, name="rollouts", version=1, notes=notes_of(self.task), write=write, out=out)

    def _mixed(self, choose: Chooser) -> Chooser:
        """The policy, or the expert with a probability at each step."""

        def mixed(episodes: Sequence[Episode], step: int) -> np.ndarray:
            actions = choose(episodes, step)
            drawn = np.random.default_rng((self.seed, step)).random(len(episodes))
            return np.stack(
                [
                    episode.expert() if chance < self.expert_share else action
                    for episode, action, chance in zip(episodes, actions, drawn)
                ]
            )

        return mixed


def dagger(command: Dagger, console: Console | None = None) -> None:
    """Play and train all rounds, or those that are left, and print what each policy solves.

    Raises:
        UserError: the run is no policy for tables, does not read an expert's advice, or ``out`` holds other rounds.
    """
    if process.world_size() > 1:
        raise UserError("rounds are played by one process: start them without torchrun")
    console = console or Console()
    objective, run = load_objective(command.run)
    policy_of(objective)
    if not isinstance(run.data.reads, Clips) or not run.data.reads.expert:
        raise UserError(
            f"{command.run} learnt from the actions that were taken, and in its own episodes those would be its own: "
            "train it on what an expert would do (--data.reads.expert expert)"
        )
    source = open_source(run.data)
    task = task_of(source, run.data)
    policies = [command.run]

    def kept() -> str:
        return f"{command.out} keeps all that was played and trained so far: the same command resumes"

    with keeping(kept):
        for number in range(1, command.rounds + 1):
            folder = command.out / f"round_{number}"
            wanted = Rollouts(
                policy=fingerprint_of(str(policies[-1])),
                task=task,
                episodes=command.episodes,
                expert_share=command.expert_share**number,
                size=run.data.clip.size,
                seed=command.seed + (number - 1) * command.episodes,
            )
            wanted.played(folder / "rollouts", objective)
            gather(source, [command.out / f"round_{i}" / "rollouts" for i in range(1, number + 1)], folder, task)
            console.print(f"round {number}: {command.episodes} episodes played, and a policy learns from all")
            following = replace(run, data=on_path(run.data, folder))
            trained = experiment.train(following, folder / "run")
            objective = trained.objective.eval()
            policies.append(folder / "run")
    console.print(_results(policies, run))


def on_path(data: Data, folder: Path) -> Data:
    """The same settings for what was gathered in a folder."""
    return replace(data.at(folder), synthetic=None, weights=())


def gather(source: Source, rollouts: Sequence[Path], folder: Path, task: TableTask) -> None:
    """Write a manifest of all demonstrations and of the episodes of all rounds so far.

    Raises:
        UserError: demonstrations lie in an archive.
    """
    rows = [*_demonstrations(source), *(row for path in rollouts for row in _played(path, folder))]
    write_csv(rows, folder / MANIFEST)
    write_json(notes_of(task), folder / NOTES)


def _demonstrations(source: Source) -> Iterator[dict[str, str]]:
    for sample in source.samples:
        if sample.actions is None or sample.offset is not None or sample.start is not None:
            raise UserError(f"{source.root} does not hold a file for each demonstration and one for its actions")
        paths = {"path": os.path.abspath(sample.path), "actions": os.path.abspath(sample.actions.path)}
        yield {**paths, "split": sample.split}


def _played(rollouts: Path, folder: Path) -> Iterator[dict[str, str]]:
    """Episodes of a round, as seen from the folder of the manifest, so that all rounds can be moved together."""
    for video in sorted((rollouts / "train").glob("*.mp4")):
        path = os.path.relpath(video, folder)
        yield {"path": path, "actions": f"{path.removesuffix('.mp4')}.actions.npz", "split": "train"}


def _results(policies: Sequence[Path], run: Run) -> Table:
    """What each policy solved when its training ended, if the run evaluates that."""
    table = Table("policy", "solved", "95% interval", box=None)
    for path in policies:
        values = {name: found[-1] for name, (_, found) in history(path).items() if name.startswith("eval/success_")}
        if "eval/success_rate" in values:
            low, high = values["eval/success_low"], values["eval/success_high"]
            table.add_row(str(path), f"{values['eval/success_rate']:.0%}", f"{low:.0%} to {high:.0%}")
        else:
            hint = (
                "" if any(isinstance(one, Success) for one in run.evals) else "filmstrip eval RUN --protocol success"
            )
            table.add_row(str(path), "not measured", hint)
    return table

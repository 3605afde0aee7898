"""How long an agent's training waits for its environment, and for rewards by likelihood.

    python bench/acting.py [--steps 100] [--envs 1]

Batches come from a replay in which the agent acts between them: what training waits for is a step in ``orbit``
(32 x 32 pixels), the policy's pass that decides on it, the reward of its frame by VideoGPT (preset
``rewards.viper:point``, fresh weights), and drawing the sequences.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from filmstrip.data.sources import open_source
from filmstrip.rl.films import ExpertFilms
from filmstrip.runs.experiment import train
from filmstrip.systems import find
from filmstrip.train.lengths import Steps
from loop_step import loop_step

AGENTS = {
    "DrQ, true reward": ("control.drq:point", False),
    "DrQ, likelihood": ("control.drq:viper_point", True),
    "Dreamer, true reward": ("control.dreamer:point", False),
    "Dreamer, likelihood": ("control.dreamer:viper_point", True),
}


def reward_run(folder: Path) -> Path:
    """A run of a video model, after one step: it costs what one that has learnt does."""
    run = find("rewards.viper:point")
    films = ExpertFilms(environments=("orbit",), num_train=2, num_test=1, max_steps=12)
    loop = replace(run.train, length=Steps(1), save_every=1, eval_every=None)
    objective = replace(run.objective, untrained_tokenizer=True)
    data = replace(run.data, synthetic=films, num_workers=0, batch_size=2)
    train(replace(run, data=data, objective=objective, train=loop, evals=()), folder)
    return folder


def waited(preset: str, reward: Path | None, steps: int, envs: int, folder: Path) -> tuple[float, float]:
    """Seconds of the processor for a batch, and for the step that learns from it."""
    run = find(preset)
    reads = replace(run.data.reads, env=replace(run.data.reads.env, name="orbit"), prefill=100, num_envs=envs)
    data = replace(run.data, reads=replace(reads, reward_run=None if reward is None else str(reward)))
    source = open_source(data)
    objective = run.objective.bind(source.info(data.train_split)).build().train()
    learn, replay = loop_step(objective, run.optim, run.train.clip_grad), source.loader(data, seed=0)
    replay.begin(objective, folder)
    batches = replay.stream(0)
    learn(next(batches))
    for_batches = for_steps = 0.0
    for _ in range(steps):
        begin = time.process_time()
        batch = next(batches)
        middle = time.process_time()
        learn(batch)
        for_batches, for_steps = for_batches + middle - begin, for_steps + time.process_time() - middle
    replay.close()
    return for_batches / steps, for_steps / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agents", nargs="+", choices=AGENTS, default=list(AGENTS))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--envs", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        reward = reward_run(Path(folder) / "prior")
        print("| agent | a batch, ms | a step, ms | share waited |")
        print("|---|---:|---:|---:|")
        for name in given.agents:
            preset, likelihood = AGENTS[name]
            batch, step = waited(
                preset, reward if likelihood else None, given.steps, given.envs, Path(folder) / preset
            )
            print(f"| {name} | {1e3 * batch:.1f} | {1e3 * step:.1f} | {batch / (batch + step):.0%} |", flush=True)


if __name__ == "__main__":
    main()

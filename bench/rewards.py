"""Rewards by likelihood for a batch of environments: frames a second with codes kept and one pass for all, against
coding each window anew, one environment at a time; and with windows that move in strides.

    python bench/rewards.py [--environments 8] [--steps 24]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch

from filmstrip.inference import inference
from filmstrip.rl.reward_config import RewardConfig
from filmstrip.rl.rewards import RewardStream, VideoReward
from filmstrip.systems import find


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="rewards.viper:point")
    parser.add_argument("--environments", type=int, default=8)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    objective = find(given.preset).objective.build().eval()
    size, window = find(given.preset).data.clip.size, objective.num_frames
    films = torch.randint(256, (given.environments, window + given.steps, 3, size, size), dtype=torch.uint8)

    taken: list[float] = []

    def stream_of(stride: int, every: int) -> Callable[[], None]:
        reward = VideoReward(objective, RewardConfig(stride=stride), size=size)

        def run() -> None:
            stream = RewardStream(reward, given.environments)
            stream.add([film[:window] for film in films])
            start = time.process_time()
            for t in range(window, window + given.steps, every):
                stream.add([film[t : t + every] for film in films])
            taken.append(time.process_time() - start)

        return run

    def anew() -> None:
        start = time.process_time()
        with inference(objective):
            for t in range(window, window + given.steps):
                for film in films:
                    clip = film[None, t + 1 - window : t + 1]
                    objective.frame_log_probs(objective.frame_codes(clip), {"seed": torch.zeros(1)})
        taken.append(time.process_time() - start)

    half = max(1, window // 2)
    sides = {
        "each window coded anew, one at a time": anew,
        "codes kept, all environments in one pass": stream_of(1, 1),
        f"the same, {half} frames at once": stream_of(1, half),
        f"the same, windows in strides of {half}": stream_of(half, half),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(given.rounds):
        for name, side in sides.items():
            side()
            seconds[name].append(taken.pop())
    base = median(seconds["each window coded anew, one at a time"])
    for name, values in seconds.items():
        rate = given.environments * given.steps / median(values)
        print(f"{name:<45} {rate:8.1f} frames/s  x {base / median(values):.1f}")


if __name__ == "__main__":
    main()

"""Features of every layer from one pass of an encoder, against one pass for each layer and one for the last alone.

    python bench/layers.py                       # ViT-S of VideoMAE and a Toto of its width, two clips of 16 frames
    python bench/layers.py --encoders Toto-S --rounds 3

A pass for each layer is what reading them one after the other costs, where each reaches the top of the network.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch

from filmstrip.inference import inference
from filmstrip.systems.pretraining import toto, videomae
from timing import alternate, ratio_table

CLIPS = 2
ENCODERS = {
    "ViT-S": videomae.SMALL,
    "Toto-S": replace(toto.base().objective, num_frames=4, width=384, num_heads=6, mlp_dim=1024),
}


def passes(name: str) -> dict[str, Callable[[], None]]:
    config = ENCODERS[name]
    encoder = config.build().encoder
    shape = (CLIPS, config.num_frames, 3, config.size, config.size)
    video = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def run(layers: bool, times: int = 1) -> None:
        with inference(encoder):
            for _ in range(times):
                found = encoder(video, layers=layers)
                assert len(found.layers) == (config.depth if layers else 0)

    return {
        "last layer": lambda: run(False),
        "all layers, one pass": lambda: run(True),
        f"{config.depth} layers, a pass each": lambda: run(False, config.depth),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for name in args.encoders:
        print(
            f"{name}, {CLIPS} clips\n\n{ratio_table(alternate(passes(name), args.rounds), 'last layer')}\n",
            flush=True,
        )


if __name__ == "__main__":
    main()

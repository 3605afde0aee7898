"""Augmentation alone, for batches of 8 clips of 16 x 224 x 224, on the CPU's cores.

    python bench/augment.py [--rounds 25]

The floor is a copy of the batch into memory that is there: no augmentation can do with less. Every round draws anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import count

import torch

from filmstrip.data.augment.pipeline import apply_augment
from filmstrip.data.config import Augment
from timing import alternate, ratio_table

BATCH, SHAPE, CLASSES = 8, (16, 3, 224, 224), 400
FLOOR = "copy"
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
AUGMENTS = {
    "mirror": Augment(mirror=0.5),
    "brightness, contrast": Augment(mirror=0.0, brightness=0.4, contrast=0.4),
    "brightness, contrast, saturation, hue": Augment(mirror=0.0, **JITTER),
    "RandAugment, 2 operations": Augment(mirror=0.0, rand_ops=2),
    "erasing, always": Augment(mirror=0.0, erase=1.0),
    "mixup": Augment(mirror=0.0, mixup=0.8),
    "cutmix": Augment(mirror=0.0, cutmix=1.0),
    "mirror, RandAugment, erasing (25%), mixup or cutmix": Augment(rand_ops=2, erase=0.25, mixup=0.8, cutmix=1.0),
}


def calls(augment: Augment, video: torch.Tensor) -> Callable[[], object]:
    """Augment the same clips with new seeds at every call."""
    numbers, label = count(), torch.arange(BATCH)

    def call() -> object:
        seeds = torch.arange(BATCH) + BATCH * next(numbers)
        return apply_augment({"video": video, "seed": seeds, "label": label}, augment, num_classes=CLASSES)

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    rounds = parser.parse_args().rounds
    video = torch.randint(256, (BATCH, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    room = torch.empty_like(video)
    rows = {FLOOR: lambda: room.copy_(video), **{name: calls(augment, video) for name, augment in AUGMENTS.items()}}
    print(f"ms a clip, {torch.get_num_threads()} threads, medians of {rounds} rounds\n")
    print(ratio_table(alternate(rows, rounds), FLOOR, per=BATCH))


if __name__ == "__main__":
    main()

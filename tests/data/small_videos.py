"""Small numbered videos, and loaders that read them."""

import itertools
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import torch

from filmstrip.data.config import Clip, Data
from filmstrip.data.reading.loader import TrainLoader
from filmstrip.data.sources import open_path
from filmstrip.protocols import Batch

VIDEOS = 10
LENGTH = 12


def encode(path: Path, level: int, noise: int = 1) -> None:
    """A grey video that brightens by 8 from frame to frame, so that pixels tell which frames were cut."""
    rng = np.random.default_rng(level)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"crf": "4", "g": "4"})
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for i in range(LENGTH):
            picture = level + 8 * i + rng.integers(0, noise, (24, 32, 3)).astype(np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())


def settings_of(root: Path, **changes) -> Data:
    clip = Clip(num_frames=4, stride=2, size=16, short_side=(16, 20))
    return replace(Data(path=root, clip=clip, batch_size=4, num_workers=0, max_unreadable=0.5), **changes)


def loader(root: Path, seed: int = 0, rank: int = 0, world: int = 1, accumulate: int = 1, **changes) -> TrainLoader:
    data = settings_of(root, **changes)
    return TrainLoader(open_path(root), data, seed=seed, rank=rank, world=world, accumulate=accumulate)


def take(train: TrainLoader, count: int, start: int = 0) -> list[Batch]:
    batches = list(itertools.islice(train.stream(start), count))
    train.close()
    return batches


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second):
        assert a.keys() == b.keys()
        assert a["name"] == b["name"]
        for key in a.keys() - {"name"}:
            assert torch.equal(a[key], b[key]), key


def joined(batches: list[Batch]) -> Batch:
    """Several batches as one."""
    whole = {key: torch.cat([b[key] for b in batches]) for key in batches[0].keys() - {"name"}}
    return {**whole, "name": [name for b in batches for name in b["name"]]}

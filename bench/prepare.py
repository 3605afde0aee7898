"""What preparing a collection is worth when training clips are read from it.

    python bench/prepare.py PATH [--rounds 5]

Copies PATH (a folder or a manifest) as ``filmstrip data prepare`` does, and reads the same training clips
(16 frames, stride 4, random short side 256-320, crop 224) from both, file by file, exact and with ``snap``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from filmstrip.data.files import files_of
from filmstrip.data.sources import open_path
from filmstrip.data.tools.prepare import prepare_collection
from filmstrip.video.clips import read_clips
from filmstrip.video.decode import open_video
from timing import alternate, ratio_table

CLIP = {"num_frames": 16, "stride": 4, "size": 224, "short_side": (256, 320)}


def reader(path: str, snap: bool) -> Callable[[], object]:
    """Cut clips at random moments, a different one at each call, the same ones for every reader."""
    rng = np.random.default_rng(0)

    def read():
        with open_video(path) as decoder:
            return read_clips(decoder, **CLIP, rng=rng, snap=snap)

    return read


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare_collection(options.path, Path(folder) / "prepared")
        paths = {file.name: file.path for file in files_of(open_path(options.path))}
        good = [outcome for outcome in prepared.outcomes if not outcome.error]
        totals: dict[str, float] = {}
        gains = []
        for outcome in good:
            pairs = {"source": paths[outcome.name], "prepared": f"{prepared.out}/{outcome.target}"}
            kinds = {
                kind + ", snap" * snap: reader(path, snap) for kind, path in pairs.items() for snap in (False, True)
            }
            seconds = alternate(kinds, options.rounds)
            gains.append(seconds["source"] / seconds["prepared, snap"])
            totals = {kind: totals.get(kind, 0.0) + value for kind, value in seconds.items()}
    print(ratio_table(totals, "source", per=len(good)))
    quarter, middle, most = statistics.quantiles(gains, n=4)
    print(f"\n{len(gains)} files; gain of one file: quartiles {quarter:.1f}, {middle:.1f}, {most:.1f}")


if __name__ == "__main__":
    main()

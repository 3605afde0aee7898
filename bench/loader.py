"""Loader throughput with 0, 1 and 2 workers, against bare decoding, on files of which some are bad.

    python bench/loader.py [--files 200] [--rounds 5]

Bare decoding reads the packets from the key frame before each clip to its last frame and decodes them, without
converting, scaling or keeping anything: no loader can do with less. The rows alternate within each round.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path

import av
import numpy as np
import torch

from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds import clips
from filmstrip.data.reading.loader import TrainLoader
from filmstrip.data.sources import Source, open_path
from timing import alternate, ratio_table

WIDTH, HEIGHT, FRAMES, GOP = 340, 256, 150, 12
BAD = 0.05
BATCH = 8
BARE = "bare decoding"


def make_files(root: Path, count: int) -> None:
    """H.264 files of moving texture; every twentieth is empty, cut to its header, or text."""
    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(0, 256, (40, 60, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
    (root / "train").mkdir()
    for i in range(count):
        path = root / "train" / f"{i:04}.mp4"
        if i % round(1 / BAD) == 0:
            path.write_bytes([b"", b"\0\0\0\x18ftypmp42", b"not a video"][i // round(1 / BAD) % 3])
            continue
        with av.open(str(path), "w") as file:
            stream = file.add_stream("libx264", rate=25, options={"g": str(GOP), "preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            dy, dx = rng.integers(0, texture.shape[0] - HEIGHT), rng.integers(0, 200)
            for t in range(FRAMES):
                x = dx + 2 * t
                picture = np.ascontiguousarray(texture[dy : dy + HEIGHT, x : x + WIDTH])
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            file.mux(stream.encode())


def settings(root: Path, num_workers: int) -> Data:
    clip = Clip(num_frames=16, stride=4, size=112, short_side=(128, 160))
    return Data(path=root, clip=clip, batch_size=BATCH, num_workers=num_workers, max_unreadable=2 * BAD)


def load(source: Source, data: Data, batches: int) -> TrainLoader:
    """Read the first batches of a fresh stream, starting its workers included."""
    loader = TrainLoader(source, data, seed=0)
    for batch in itertools.islice(loader.stream(0), batches):
        assert batch["video"].shape[0] == BATCH
    loader.close()
    return loader


def spans(source: Source, data: Data, batches: int) -> list[tuple[str, float, float]]:
    """Which part of which file the loader's clips cover: path, first and last time, seconds."""
    found, plain = [], clips.read_clips

    def record(decoder, **kwargs):
        clips = plain(decoder, **kwargs)
        found.extend((str(decoder.info.path), float(c.times[0]), float(c.times[-1])) for c in clips)
        return clips

    clips.read_clips = record
    try:
        load(source, data, batches)
    finally:
        clips.read_clips = plain
    return found


def decode(found: list[tuple[str, float, float]]) -> None:
    """Decode those parts from the key frame before them, on one thread, and drop the frames."""
    for path, first, last in found:
        with av.open(path) as file:
            stream = file.streams.video[0]
            stream.codec_context.thread_count = 1
            origin = stream.start_time or 0
            file.seek(origin + int(first / stream.time_base), stream=stream)
            for frame in file.decode(stream):
                if float((frame.pts - origin) * stream.time_base) >= last - 1e-6:
                    break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_files(root, args.files)
        source, batches = open_path(root), args.files // BATCH
        train = len(source.split("train"))
        found = spans(source, settings(root, 0), batches)
        rows = {BARE: lambda: decode(found)}
        for workers in (0, 1, 2):
            data = settings(root, workers)
            rows[f"loader, {workers} workers"] = lambda data=data: load(source, data, batches)
        bad = [entry for entry in load(source, settings(root, 0), batches).unreadable if not entry.used]
        medians = alternate(rows, args.rounds)
    print(
        f"{len(bad)} bad files among {train}; {batches} batches of {BATCH} clips; medians of {args.rounds} rounds\n"
    )
    print(ratio_table(medians, BARE, per=batches * BATCH))


if __name__ == "__main__":
    main()

"""Damaged copies of video files, by the thousand: each must give frames or a ``DecodeError``, and nothing else.

    python tests/video/mutations.py --count 100000 [--workers 2] [--first 0]

Works through small files of the shared collection, where it is, and through files made here. Prints what went wrong
with the number of the copy, which makes it again, and ends with a line of totals.
"""

from __future__ import annotations

import argparse
import collections
import io
import multiprocessing
import random
import signal
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path

import numpy as np
from numbered_videos import encode, numbered

SHARED = Path(__file__).parents[3] / "shared" / "data" / "decoder"
LARGEST = 300_000
SECONDS = 60
"""A copy that takes longer than this counts as a failure."""

MADE = {
    **{form: {"format": form, "g": "12", "bf": "2"} for form in ("mp4", "matroska", "mpegts", "avi", "asf", "flv")},
    "mpeg4 in avi": {"format": "avi", "codec": "mpeg4", "bf": "2", "g": "12"},
    "mpeg2 in ps": {"format": "mpeg", "codec": "mpeg2video", "bf": "2", "g": "12"},
    "vp8": {"format": "webm", "codec": "libvpx", "auto-alt-ref": "1", "lag-in-frames": "16", "g": "20"},
    "vp9": {"format": "webm", "codec": "libvpx-vp9", "cpu-used": "8", "g": "20"},
    "fragments": {"format": "mp4", "g": "12", "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "h264": {"format": "h264", "g": "12"},
}


@cache
def originals() -> tuple[bytes, ...]:
    """The files that are damaged."""
    frames = numbered(45)
    made = [encode(frames, **options) for options in MADE.values()]
    there = sorted(path for path in SHARED.rglob("*") if path.is_file() and path.suffix != ".csv")
    return (*made, *(path.read_bytes() for path in there if 0 < path.stat().st_size <= LARGEST))


def damaged(number: int) -> bytes:
    """Copy ``number``: some bytes changed, zeroed, taken out, put in, repeated, or the end cut off."""
    rng = random.Random(number)
    data = bytearray(rng.choice(originals()))
    for _ in range(rng.choice((1, 1, 2, 5))):
        place, length = rng.randrange(len(data)), rng.choice((1, 4, 64, 1024, 16384))
        if rng.random() < 0.4:  # headers are small, and matter most
            place = rng.randrange(min(len(data), 4096))
        match rng.randrange(7):
            case 0 | 1:
                for _ in range(rng.choice((1, 10, 200))):
                    data[min(len(data) - 1, place + rng.randrange(4096))] = rng.randrange(256)
            case 2:
                data[place : place + length] = bytes(len(data[place : place + length]))
            case 3:
                del data[place : place + length]
            case 4:
                data[place:place] = rng.randbytes(length)
            case 5:
                data[place:place] = data[place : place + length]
            case 6:
                del data[max(1, place) :]
        data = data or bytearray(b"\0")
    return bytes(data)


def read(data: bytes, seed: int) -> str:
    """Read a file in every way; ``frames``, or the reason why there are none.

    Raises:
        AssertionError: an answer is not what was asked for.
    """
    from filmstrip.video import DecodeError, open_video, read_clips

    rng = np.random.default_rng(seed)
    try:
        with open_video(io.BytesIO(data)) as decoder:
            clips = read_clips(decoder, num_frames=4, size=32, rng=rng)
            picked = decoder.frames_at(rng.uniform(0, max(decoder.info.duration, 1.0), 5), size=(32, 32))
            times = decoder.times()
            assert len(picked) == len(picked.video) == 5 and all(len(clip) == len(clip.video) == 4 for clip in clips)
            assert (np.diff(times) > 0).all() and np.isfinite(times).all() and decoder.info.fps > 0
            decoder.key_times()
            last = -np.inf
            for number, part in enumerate(decoder.frames(size=(32, 32))):
                assert len(part) == len(part.damaged) == len(part.video) and part.times[0] > last
                last = part.times[-1]
                if number == 8:
                    break
            return "frames"
    except DecodeError as error:
        assert error.reason
        return "DecodeError"


def try_copy(number: int) -> tuple[int, str, float]:
    """The number, what became of it, and the seconds that it took."""
    begun = time.perf_counter()
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        outcome = read(damaged(number), number)
    except BaseException:
        outcome = traceback.format_exc(limit=-3)
    finally:
        signal.alarm(0)
    return number, outcome, time.perf_counter() - begun


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def main() -> int:
    """Try ``--count`` copies, and say how many failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    totals, slowest = collections.Counter(), 0.0
    for first in range(options.first, options.first + options.count, 500):
        numbers = range(first, min(first + 500, options.first + options.count))
        for number, outcome, seconds in _tried(numbers, options.workers):
            kind = outcome if outcome in ("frames", "DecodeError") else "failure"
            totals[kind] += 1
            slowest = max(slowest, seconds)
            if kind == "failure":
                print(f"copy {number}:\n{outcome}", flush=True)
    print(f"{sum(totals.values())} copies: {dict(totals)}; the slowest took {slowest:.1f} s")
    return int(totals["failure"] > 0)


def _tried(numbers: range, workers: int) -> list[tuple[int, str, float]]:
    """What became of some copies; where a process crashed, each of them alone."""
    context = multiprocessing.get_context("forkserver")
    try:
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            return [task.result() for task in as_completed([pool.submit(try_copy, n) for n in numbers])]
    except BrokenProcessPool:
        if len(numbers) == 1:
            return [(numbers[0], "the process crashed", 0.0)]
        half = len(numbers) // 2
        return [*_tried(numbers[:half], workers), *_tried(numbers[half:], workers)]


if __name__ == "__main__":
    sys.exit(main())

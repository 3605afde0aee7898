"""Following a live source: what a classifier says of its newest moments, line by line."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from filmstrip.commands.predict import Predict
from filmstrip.data.config import Clip
from filmstrip.data.reading.views import Views
from filmstrip.errors import Terminated, UserError
from filmstrip.files import GrowingTable, check_table_name
from filmstrip.runs.classifiers import VideoClassifier, load_classifier
from filmstrip.runs.predictions import as_cells
from filmstrip.video.geometry import centre_crop
from filmstrip.video.live import LiveSource, Window

SPREAD = 2.0
"""Length of the window of a model whose clips are spread over whole videos, in seconds."""


def the_source(paths: Sequence[Path]) -> Path:
    """The one source that is to be followed.

    Raises:
        UserError: there are several paths.
    """
    if len(paths) != 1:
        raise UserError(f"one live source is followed at a time, and {len(paths)} paths were given")
    return paths[0]


def predict_live(command: Predict) -> int:
    """Print what the classifier says of the newest window, or write it to a table, until the source ends, the time is
    over, or Ctrl-C; returns 0.

    Raises:
        UserError: the source cannot be opened, breaks off or has no picture, or the run does not classify.
    """
    path = the_source(command.files)
    if command.out is not None:
        check_table_name(command.out)
    with LiveSource(path) as source, ExitStack() as open_files:
        classifier = load_classifier(command.run)
        top_k = min(command.top_k, len(classifier.classes))
        table = None
        if command.out is not None:
            ranks = [name for rank in range(1, top_k + 1) for name in (f"class_{rank}", f"score_{rank}")]
            table = open_files.enter_context(GrowingTable(command.out, ["seconds", *ranks, "late", "dropped"]))

        def say(window: Window) -> None:
            top = classified(classifier, window, top_k)
            told = {
                "seconds": round(float(window.times[-1]), 3),
                **as_cells(top),
                "late": round(time.monotonic() - window.came, 3),
                "dropped": window.dropped,
            }
            if table is not None:
                table.add(told)
            if command.json:
                print(json.dumps(told), flush=True)
            elif table is None:
                print(line(float(window.times[-1]), named(top)), flush=True)

        count = follow(source, classifier.clip, say, command.every, command.window, command.seconds)
    if table is not None:
        print(f"{command.out}: {count} rows")
    return 0


def follow(
    source: LiveSource,
    clip: Clip,
    say: Callable[[Window], None],
    every: float,
    window: float | None,
    seconds: float | None,
) -> int:
    """Hand the newest windows to ``say`` until the source ends, the time is over, or Ctrl-C; returns their number.

    Raises:
        DecodeError: the source breaks off, or has no picture.
    """
    length = window or (SPREAD if clip.sampling != "dense" else clip.num_frames * clip.stride / source.fps)
    windows: Iterator[Window] = source.windows(clip.num_frames, length / clip.num_frames, every=every)
    until = None if seconds is None else time.monotonic() + seconds
    count = 0
    try:
        for count in itertools.count():
            shown = next(windows, None)
            if shown is None:
                break
            say(shown)
            if until is not None and time.monotonic() >= until:
                return count + 1
    except Terminated:
        raise
    except KeyboardInterrupt:  # the usual end of a source that has none
        return count
    return count


def classified(classifier: VideoClassifier, window: Window, top_k: int) -> tuple[tuple[str, float], ...]:
    """The most probable classes of a window and their probabilities, of its centre crop."""
    clip, info = classifier.clip, window.info
    if clip.native is not None:
        crop, size = None, clip.native.evaluated().size_of(clip.num_frames, info.height, info.width)
    else:
        size = (clip.size, clip.size)
        crop = centre_crop(info.height, info.width, size, clip.eval_short_side)
    span = (float(window.times[0]), float(window.times[-1]))
    views = Views(video=window.video(crop, size)[None], spans=(span,), damaged=False)
    return classifier.predict_views(info.path, views, top_k=top_k).top


def line(second: float, what: str) -> str:
    """A moment of a source as a line of text."""
    minutes, rest = divmod(second, 60)
    return f"{int(minutes):4d}:{rest:04.1f}  {what}"


def named(top: Sequence[tuple[str, float]]) -> str:
    """Classes with their probabilities, as text."""
    return ", ".join(f"{name} {probability:.0%}" for name, probability in top)

"""Checking a collection: every file is decoded completely, and statistics are collected."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from filmstrip.data.actions import read_rows
from filmstrip.data.config import Data
from filmstrip.data.files import VideoFile, file_of, files_of
from filmstrip.data.layouts.manifest import manifest_of, rows_without_label
from filmstrip.data.sample import Source
from filmstrip.data.sources import open_videos
from filmstrip.data.tools.parallel import each
from filmstrip.errors import UserError
from filmstrip.video.decode import open_video
from filmstrip.video.images import is_image

LONG_GOP = 24
"""Number of frames between key frames above which reading a clip mostly decodes unused frames."""
LARGE_SIDE = 400
"""Short side in pixels above which training decodes many times more than it uses."""
SHOWN = 20
NAMED = 3
"""Maximum number of unusable frames of a film that are named."""
SIDED = frozenset({"left", "right", "leftward", "rightward", "clockwise", "counterclockwise", "anticlockwise"})


@dataclass(frozen=True)
class FileReport:
    """The result of checking one file."""

    name: str
    error: str = ""
    """Reason why the file cannot be read; empty if it can."""
    flaw: str = ""
    """Defect of a file that can be read; empty if there is none."""
    codec: str = ""
    width: int = 0
    height: int = 0
    fps: float = 0.0
    duration: float = 0.0
    num_frames: int = 0
    damaged: int = 0
    """Number of damaged frames."""
    lost: int = 0
    """Number of frames that the header declares and a truncated file lacks."""
    gop: float = 0.0
    """Mean number of frames from one key frame to the next."""
    bytes: int = 0


@dataclass(frozen=True)
class CollectionReport:
    """The result of checking a collection."""

    path: str
    files: tuple[FileReport, ...]
    counts: dict[str, dict[str, int]]
    """Number of samples by split and class."""
    directional: bool = False
    beyond: tuple[str, ...] = field(default=(), kw_only=True)
    """Samples that lie beyond the ends of their videos, a line each."""
    refused: tuple[str, ...] = field(default=(), kw_only=True)
    """Reasons why training would refuse the collection with default settings."""
    advice: tuple[str, ...] = field(default=(), kw_only=True)

    @cached_property
    def bad(self) -> tuple[FileReport, ...]:
        """Files that cannot be read."""
        return tuple(file for file in self.files if file.error)

    @cached_property
    def flawed(self) -> tuple[FileReport, ...]:
        """Files that can be read, but are truncated or damaged."""
        return tuple(file for file in self.files if file.flaw and not file.error)

    @cached_property
    def good(self) -> tuple[FileReport, ...]:
        """Files that can be read, flawed ones included."""
        return tuple(file for file in self.files if not file.error)

    @property
    def damaged_frames(self) -> int:
        """Frames of all files that can be read and are not what was encoded."""
        return sum(file.damaged for file in self.good)

    @property
    def lost_frames(self) -> int:
        """Frames that files which end early no longer hold, as far as their headers say."""
        return sum(file.lost for file in self.good)

    def to_json(self) -> str:
        """The whole report as one JSON object."""
        totals = {"num_files": len(self.files), "num_bad": len(self.bad), "num_flawed": len(self.flawed)}
        totals |= {"num_damaged_frames": self.damaged_frames, "num_lost_frames": self.lost_frames}
        return json.dumps({**totals, **asdict(self)}, indent=2)

    def text(self) -> str:
        """The report as text: totals, counts, statistics, problems, advice."""
        lines = [f"{self.path}: {len(self.files)} files, {len(self.bad)} unreadable, {len(self.flawed)} flawed", ""]
        lines += _count_lines(self.counts)
        if self.good:
            lines += ["", *_statistics(self.good)]
        for title, files in (("Unreadable", self.bad), ("Truncated or damaged", self.flawed)):
            if files:
                lines += ["", f"{title}:", *(f"  {file.name}: {file.error or file.flaw}" for file in files)]
        if self.damaged_frames or self.lost_frames:
            lines += ["", f"Frames: {self.damaged_frames} are damaged, {self.lost_frames} are lost"]
        for title, said in (("Beyond the end of their videos", self.beyond), ("Training would refuse", self.refused)):
            if said:
                lines += ["", f"{title}:", *(f"  {line}" for line in said)]
        if self.advice:
            lines += ["", "What to do:", *(f"- {advice}" for advice in self.advice)]
        return "\n".join(lines)


def check_collection(path: Path, workers: int = 2, fps: float | None = None) -> CollectionReport:
    """Decode every file of a collection: a folder, a manifest or shards; ``fps`` is as in
    :func:`~filmstrip.data.sources.open_path`.

    Raises:
        UserError: there is no collection there; see :func:`filmstrip.data.sources.open_videos`.
    """
    source = open_videos(path, fps)
    found = each(check_file, files_of(source), workers=workers, title="checking", crashed=_crashed)
    files = tuple(_with_actions(source, sorted(found, key=lambda file: file.name)))
    counts: dict[str, Counter[str]] = {}
    for sample in source.samples:
        label = "(no label)" if sample.label is None else source.classes[sample.label]
        counts.setdefault(sample.split, Counter())[label] += 1
    plain = {split: dict(sorted(counts[split].items())) for split in sorted(counts)}
    return CollectionReport(
        str(path),
        files,
        plain,
        source.directional,
        beyond=tuple(_beyond(source, files)),
        refused=tuple(_refused(source, path)),
        advice=tuple(_advice(path, files, source)),
    )


def check_file(file: VideoFile) -> FileReport:
    """Decode one file to its end."""
    try:
        with open_video(file.open()) as decoder:
            info, count, damaged, truncated = decoder.info, 0, 0, ""
            for frames in decoder.frames(size=(32, 32)):
                count += len(frames)
                damaged += sum(frames.damaged)
                truncated = frames.truncated or truncated
            keys = max(1, len(decoder.key_times()))
            unusable = dict(decoder.unusable)
    except (UserError, OSError) as error:
        return FileReport(file.name, error=getattr(error, "reason", None) or str(error))
    flaws = [truncated] if truncated else []
    if damaged:
        flaws.append(f"{damaged} of {count} frames are damaged")
    if unusable:
        flaws += [f"{name}: {reason}" for name, reason in list(unusable.items())[:NAMED]]
        flaws += ["..."] if len(unusable) > NAMED else []
    return FileReport(
        file.name,
        flaw="; ".join(flaws),
        codec=info.codec,
        width=info.width,
        height=info.height,
        fps=round(info.fps, 3),
        duration=round(info.duration, 3),
        num_frames=count,
        damaged=damaged,
        lost=info.num_missing,
        gop=round(count / keys, 1),
        bytes=file.stamp()[0],
    )


def _with_actions(source: Source, files: Iterable[FileReport]) -> Iterator[FileReport]:
    """The files, of which those whose actions cannot be used cannot be read either, as in training."""
    sidecars = {file_of(source, sample).name: sample.actions for sample in source.samples}
    for file in files:
        if source.actions is not None and not file.error:
            try:
                read_rows(sidecars[file.name], source.actions, file.num_frames, truncated=bool(file.flaw))
            except (ValueError, OSError) as error:
                file = replace(file, error=str(error))
        yield file


def _crashed(file: VideoFile, reason: str) -> FileReport:
    return FileReport(file.name, error=reason)


def _count_lines(counts: dict[str, dict[str, int]]) -> list[str]:
    """A table of samples: a line for each class, a column for each split."""
    splits = list(counts)
    classes = sorted({name for by_class in counts.values() for name in by_class})
    width = max(len("samples"), *(len(name) for name in classes[:SHOWN]))
    lines = [f"{'samples':<{width}}" + "".join(f"{split:>10}" for split in splits)]
    for name in classes[:SHOWN]:
        lines.append(f"{name:<{width}}" + "".join(f"{counts[split].get(name, 0):>10}" for split in splits))
    if len(classes) > SHOWN:
        lines.append(f"and {len(classes) - SHOWN} more classes")
    totals = "".join(f"{sum(counts[split].values()):>10}" for split in splits)
    return [*lines, f"{'all':<{width}}{totals}"]


def _statistics(files: Iterable[FileReport]) -> list[str]:
    """What the readable files are like."""
    files = list(files)
    videos = [file for file in files if not is_image(file.name)]
    spans: dict[str, Sequence[float]] = {
        "duration, s": [file.duration for file in videos],
        "frames": [file.num_frames for file in videos],
        "frames per second": [file.fps for file in videos],
        "short side, pixels": [min(file.width, file.height) for file in files],
        "frames per key frame": [file.gop for file in videos],
        "megabytes": [file.bytes / 1e6 for file in files],
    }
    spans = {name: values for name, values in spans.items() if values}
    lines = [f"{'':<20}{'minimum':>10}{'median':>10}{'maximum':>10}"]
    for name, values in spans.items():
        numbers = (min(values), statistics.median(values), max(values))
        lines.append(f"{name:<20}" + "".join(f"{number:>10.4g}" for number in numbers))
    for name, kinds in (
        ("codecs", Counter(file.codec for file in files)),
        ("sizes", Counter(f"{file.width}x{file.height}" for file in files)),
    ):
        common = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common(5))
        lines.append(f"{name}: {common}" + (f" and {len(kinds) - 5} more" if len(kinds) > 5 else ""))
    lasts = f"{sum(file.duration for file in videos) / 3600:.2f} hours" if videos else f"{len(files)} images"
    return [*lines, f"in all: {lasts}, {sum(spans['megabytes']) / 1000:.3g} GB"]


def _beyond(source: Source, files: Iterable[FileReport]) -> Iterator[str]:
    """The parts of videos that training would find missing, or shorter than they are said to be."""
    known = {file.name: file for file in files if not file.error and file.num_frames}
    for sample in source.samples:
        file = known.get(file_of(source, sample).name)
        if file is None or (sample.start is None and sample.end is None):
            continue
        # Headers round, and a last frame lasts as long as the others.
        lasts = max(file.duration, file.num_frames / file.fps if file.fps else 0.0) + 1 / max(file.fps, 1.0)
        if (sample.start or 0.0) >= lasts:
            yield f"{sample.name}: it begins after the video's end, which is at {file.duration:g} s"
        elif sample.end is not None and sample.end > lasts:
            yield f"{sample.name}: it ends after the video does, which is at {file.duration:g} s"


def _refused(source: Source, path: Path) -> Iterator[str]:
    """What some training refuses: classifiers without labels or with one class, and splits of other names."""
    unlabelled = [sample for sample in source.samples if sample.label is None]
    if unlabelled and len(unlabelled) < len(source.samples):
        table = manifest_of(path)
        rows = rows_without_label(table) if table else []
        where = f"rows {_some(map(str, rows))}" if rows else _some(sample.name for sample in unlabelled)
        yield f"a classifier needs a label for every video, and {len(unlabelled)} have none: {where}"
    if len(source.classes) == 1:
        yield f"a classifier needs two classes or more, and there is one: {source.classes[0]}"
    wanted = Data()
    for purpose, split in (("train", wanted.train_split), ("eval", wanted.eval_split)):
        if split not in source.splits:
            option = f"--data.{purpose}-split NAME"
            yield f"there is no split {split!r}, but {_some(source.splits)}: {option} if another stands for it"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _advice(path: Path, files: tuple[FileReport, ...], source: Source) -> Iterable[str]:
    """What a person could do about what was found."""
    good = [file for file in files if not file.error]
    if len(good) < len(files):
        yield "Unreadable files are replaced in training and skipped in evaluation; repair or remove them if you can."
    if any(file.flaw for file in good):
        yield "Flawed files are used as far as they go; fetch them again if you can."
    if good and not all(map(is_image, (file.name for file in good))):
        gop = statistics.median(file.gop for file in good)
        side = statistics.median(min(file.width, file.height) for file in good)
        if gop > LONG_GOP or side > LARGE_SIDE:
            yield (
                f"Half of the files have at least {gop:g} frames per key frame, and half a short side of at least "
                f"{side:g} pixels: `filmstrip data prepare {path} --out FOLDER` makes copies that load several times "
                "faster."
            )
    if not source.directional and any(SIDED & set(name.lower().replace("_", " ").split()) for name in source.classes):
        yield (
            "Some classes name a direction, and training mirrors videos: if mirroring changes what a video shows, "
            f'put {{"directional": true}} into {source.root / "dataset.json"}.'
        )
    labelled = {split: {s.label for s in source.samples if s.split == split} for split in source.splits}
    for split, labels in labelled.items():
        missing = [name for i, name in enumerate(source.classes) if i not in labels]
        if missing:
            yield f"Split {split!r} has no video of {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}."

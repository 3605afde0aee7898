"""Films: those of a run's data, uploaded ones, and those to label; as files that a browser can play.

A film in a format that browsers do not play is converted once, and kept. Which file is shown is decided here:
requests name a run and one of its videos, an upload, or a file below the folder of videos, never a path elsewhere.
"""

from __future__ import annotations

import functools
import hashlib
import io
import math
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from filmstrip.data.layouts.folder import is_video
from filmstrip.data.sample import FeatureSample, Sample, Source
from filmstrip.data.sources import open_source
from filmstrip.files import replacing
from filmstrip.runs.config import read_config
from filmstrip.runs.contents import CONFIG, PREDICTIONS
from filmstrip.runs.loading import load_classes
from filmstrip.runs.predictions import Predictions, kept_predictions
from filmstrip.studio.places import Missing, Places, inside
from filmstrip.video.decode import open_video
from filmstrip.video.decoder import DecodeError, Decoder, VideoInfo
from filmstrip.video.images import is_image
from filmstrip.video.write import Mp4File

SHORT_SIDE = 720
"""Maximum short side of a converted film, in pixels."""
MAX_FPS = 60.0
STILL = 240
"""Width of a still, in pixels."""
UPLOADS, CONVERTED, MEMBERS = "uploads", "films", "members"
"""Folders of the studio's own: uploaded films, converted ones, and members of archives."""

_locks: dict[Path, threading.Lock] = {}


@dataclass(frozen=True)
class Film:
    """A film that the studio may show."""

    path: Path
    name: str
    query: Mapping[str, str]
    """The part of a request that names it."""
    start: float | None = None
    end: float | None = None
    """Part of the file that is meant, seconds; None for all of it."""
    label: str | None = None


@dataclass(frozen=True)
class Playable:
    """A file that browsers play."""

    path: Path
    type: str
    info: VideoInfo
    why: str | None
    """Reason why the film was converted; None for the film itself."""


def film_of(places: Places, query: Mapping[str, str]) -> Film:
    """The film that a request names: ``sample`` of ``run``, ``upload``, or ``video``.

    Raises:
        Missing: there is none, or it may not be shown.
        UserError: the run's data cannot be opened.
    """
    if name := query.get("upload"):
        folder = inside(places.own, f"{UPLOADS}/{name}")
        files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        if len(files) != 1 or not folder.parent.name == UPLOADS:
            raise Missing(f"there is no upload {name!r}: upload the film again")
        return Film(files[0], files[0].name, {"upload": name})
    if name := query.get("video"):
        path = inside(places.videos, name) if places.videos else None
        if path is None or not path.is_file() or not is_video(path):
            raise Missing(f"there is no video {name!r} in the folder to label")
        return Film(path, name, {"video": name})
    run, name = query.get("run", ""), query.get("sample", "")
    folder = places.run(run)
    source = source_of(folder)
    sample = samples_of(source).get(name)
    if sample is None:
        raise Missing(f"there is no video {name!r} in the data of {run}")
    return film_of_sample(places, run, sample, source.classes)


def film_of_sample(places: Places, run: str, sample: Sample, classes: tuple[str, ...]) -> Film:
    """A video of a run's data."""
    label = None if sample.label is None else classes[sample.label]
    query = {"run": run, "sample": sample.name}
    # The key frames of one film are one film.
    is_whole = label is None and sample.start is None and sample.end is None
    name = Path(sample.path).name if is_whole and sample.offset is None else sample.name
    return Film(_on_disk(places, sample), name, query, sample.start, sample.end, label)


def source_of(folder: Path) -> Source:
    """The data of a run, opened once for each version of its configuration.

    Raises:
        UserError: they cannot be opened any more.
    """
    return _source(folder, os.stat(folder / CONFIG).st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _source(folder: Path, version: int) -> Source:
    return open_source(read_config(folder / CONFIG).data)


def samples_of(source: Source) -> dict[str, Sample]:
    """The videos of a collection by name, one for each part of a file; none of a collection of features."""
    found: dict[str, Sample] = {}
    seen = set()
    for sample in source.samples:
        part = (sample.path, sample.offset, sample.start, sample.end)
        if part not in seen and not isinstance(sample, FeatureSample):
            seen.add(part)
            found[sample.name] = sample
    return found


def predictions_of(folder: Path) -> Predictions | None:
    """The predictions that a run folder keeps; none if there are none.

    Raises:
        UserError: they are damaged.
    """
    return kept_predictions(folder, load_classes(folder)) if (folder / PREDICTIONS).exists() else None


def playable(places: Places, film: Film) -> Playable:
    """The film in a format that browsers play: itself, or a conversion that is made once.

    Raises:
        DecodeError: the film cannot be read.
    """
    with open_video(film.path) as decoder:
        info = decoder.info
    type, why = _type(film.path, info)
    if why is None:
        return Playable(film.path, type, info, None)
    target = places.own / CONVERTED / f"{digest(film.path)}.mp4"
    with _locks.setdefault(target, threading.Lock()):
        if not target.exists():
            _convert(film.path, target)
    return Playable(target, "video/mp4", info, why)


def still(film: Film, at: float | None = None) -> bytes:
    """A frame of the film as a small JPEG, by default from the middle of the part that is meant.

    Raises:
        DecodeError: the film cannot be read.
    """
    with open_video(film.path) as decoder:
        info = decoder.info
        start, end = film.start or 0.0, info.duration if film.end is None else min(film.end, info.duration)
        size = (max(1, round(STILL * info.height / info.width)), STILL)
        frame = decoder.frames_at([(start + end) / 2 if at is None else at], size=size).video[0]
    buffer = io.BytesIO()
    Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()).save(buffer, format="JPEG", quality=80)
    return buffer.getvalue()


def cut(film: Film, start: float, seconds: float, out: Path) -> None:
    """Write a part of a film, of at least one frame.

    Raises:
        DecodeError: the film cannot be read.
    """
    with open_video(film.path) as decoder:
        times = [start, *(start + i / decoder.info.fps for i in range(1, max(1, round(seconds * decoder.info.fps))))]
        frames = decoder.frames_at(
            [t for t in times if t < decoder.info.duration] or [start], size=_size(decoder.info)
        )
        with Mp4File(out, decoder.info.fps) as mp4:
            mp4.add(frames.video)


def digest(path: Path, *about: object) -> str:
    """A name for what is derived from a file in its present version."""
    stat = path.stat()
    told = (os.path.realpath(path), stat.st_mtime_ns, stat.st_size, *about)
    return hashlib.blake2b(repr(told).encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


def _type(path: Path, info: VideoInfo) -> tuple[str, str | None]:
    """The content type of a file, and why browsers do not play it; None if they do."""
    with path.open("rb") as file:
        head = file.read(64)
    container = "mp4" if head[4:8] == b"ftyp" else "webm" if head[:4] == b"\x1aE\xdf\xa3" and b"webm" in head else ""
    codecs = {"mp4": ("h264", "av1", "vp9"), "webm": ("vp8", "vp9", "av1")}.get(container, ())
    if info.codec not in codecs:
        kind = "an image" if is_image(path) else f"{info.codec} in {path.suffix.lower() or 'this file'}"
        return "", f"browsers do not play {kind}"
    if info.pixel_format not in ("yuv420p", "yuvj420p"):
        return "", f"browsers do not play pixels in {info.pixel_format or 'this format'}"
    if info.num_video_streams > 1 or info.truncated or info.num_missing:
        return "", "the file is damaged, or has several video streams"
    return f"video/{container}", None


def _size(info: VideoInfo) -> tuple[int, int]:
    """The size of a converted film: even, and not too large."""
    scale = min(1.0, SHORT_SIDE / min(info.height, info.width))
    return (max(2, 2 * round(info.height * scale / 2)), max(2, 2 * round(info.width * scale / 2)))


def _convert(path: Path, target: Path) -> None:
    """Write a film as H.264 at a constant rate, with each frame at its time."""
    with open_video(path) as decoder, replacing(target) as part:
        fps = min(MAX_FPS, decoder.info.fps or 1.0) if decoder.info.duration else 1.0
        # An own suffix, because the writer renames its own temporary file.
        whole = part.with_suffix(".whole.mp4")
        try:
            with Mp4File(whole, fps) as mp4:
                for frame in _steady(decoder, fps):
                    mp4.add(frame[None])
            if not mp4.num_frames:
                raise DecodeError(str(path), 0, "no frame can be decoded")
            whole.replace(part)
        finally:
            whole.unlink(missing_ok=True)


def _steady(decoder: Decoder, fps: float) -> Iterator[Tensor]:
    """The frame at each tick of a clock."""
    shown, ticks = None, 0
    for part in decoder.frames(size=_size(decoder.info)):
        for frame, time in zip(part.video, part.times.tolist()):
            while shown is not None and ticks / fps < time - 0.5 / fps:
                yield shown
                ticks += 1
            shown = frame
    if shown is not None:
        for _ in range(max(1, math.ceil(decoder.info.duration * fps - 0.5) - ticks)):
            yield shown


def _on_disk(places: Places, sample: Sample) -> Path:
    """The file of a sample; a member of an archive is written to one, once."""
    path = Path(sample.path)
    if sample.offset is None:
        if not path.is_file():
            raise Missing(f"{path} is not there any more")
        return path
    target = places.own / MEMBERS / digest(path, sample.offset) / (Path(sample.name).stem + ".mp4")
    if not target.exists():
        member = sample.file()
        assert isinstance(member, io.BytesIO), "the member of an archive"
        with replacing(target) as part:
            part.write_bytes(member.getvalue())
    return target

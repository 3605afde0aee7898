"""LeRobot's datasets, versions 2 and 3: tables of what a robot did, and the videos of its cameras.

    meta/info.json                                                  2.x and 3.0
    meta/episodes.jsonl, tasks.jsonl                                2.x: an episode, a task a line
    data/chunk-000/episode_000000.parquet                           2.x: a file for each episode
    videos/chunk-000/observation.images.top/episode_000000.mp4
    meta/episodes/chunk-000/file-000.parquet, meta/tasks.parquet    3.0
    data/chunk-000/file-000.parquet                                 3.0: several episodes a file
    videos/observation.images.top/chunk-000/file-000.mp4            3.0: several episodes, one after another

The column ``action`` holds what is done *after* each frame, so that it is moved by one here, with zeros before an
episode's first frame. Other columns of numbers (``observation.state``) can be read as states. An episode's
tasks are its texts.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from filmstrip.data.actions import KEY, Sidecar
from filmstrip.data.layouts.arrays import leading
from filmstrip.data.sample import Sample, Source, collect, hold_out, read_notes
from filmstrip.errors import UserError

INFO = Path("meta") / "info.json"
ACTION = "action"
IMAGES = "observation.images."
VERSIONS = ("v2.0", "v2.1", "v3.0")
PATHS = {
    "v2": (
        "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    ),
    "v3": (
        "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    ),
}
"""Paths of tables and videos where ``info.json`` does not say."""


@dataclass(frozen=True)
class Rows(Sidecar):
    """What was done in the episodes of one video file: rows of tables, one episode after another."""

    episodes: tuple[tuple[str, int], ...] = ()
    """Path of the table, and number, of each episode in the order of the video."""

    def array(self, name: str) -> np.ndarray:
        """A column, a row for each frame of the video; ``actions`` are those that lead to each frame."""
        if name == KEY:
            done = (_column(path, number, ACTION) for path, number in self.episodes)
            return np.concatenate([leading(rows, len(rows)) for rows in done])
        return np.concatenate([_column(path, number, name) for path, number in self.episodes])

    def content(self) -> bytes:
        """An ``.npz`` of the actions and of all columns of observations that are numbers.

        Raises:
            OSError: a table cannot be read.
        """
        try:
            names = [name for name in _numbers(self.episodes[0][0]) if name.startswith("observation.")]
            arrays: dict[str, Any] = {name: self.array(name) for name in (KEY, *names)}
        except ValueError as error:
            raise OSError(str(error)) from None
        file = io.BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()

    @property
    def label(self) -> str:
        """The name of its file, if it is made one, for messages."""
        return self.name


@dataclass(frozen=True)
class _Episode:
    """An episode as the tables of a dataset describe it."""

    number: int
    length: int
    table: Path
    video: Path
    start: float | None = None
    """Its first second in the video; none if the video is its own."""
    tasks: tuple[str, ...] = ()


def detect(root: Path) -> bool:
    """Whether there is such a description, of any version."""
    try:
        return "codebase_version" in json.loads((root / INFO).read_bytes())
    except (OSError, ValueError, TypeError):
        return False


def open_lerobot(root: Path, camera: str = "") -> Source:
    """The episodes of one camera; without a split into training and test, a fifth is held out.

    Raises:
        UserError: the dataset is of another version, damaged, or has no videos of that camera.
    """
    try:
        info = json.loads((root / INFO).read_bytes())
        version, fps, features = str(info["codebase_version"]), float(info["fps"]), dict(info["features"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{root / INFO} does not describe a dataset of LeRobot: {error!r}") from None
    if version not in VERSIONS:
        raise UserError(
            f"{root} is a dataset of LeRobot {version}, and {', '.join(VERSIONS)} can be read: convert it with "
            "LeRobot's own program"
        )
    key = _camera(root, features, camera)
    try:
        read = _of_version_3 if version.startswith("v3") else _of_version_2
        episodes = sorted(read(root, info, key), key=lambda one: (str(one.video), one.start or 0.0, one.number))
    except (OSError, ValueError, TypeError, KeyError, IndexError, pa.ArrowException) as error:
        raise UserError(f"the episodes of {root} cannot be read: {error!r}") from None
    if not episodes:
        raise UserError(f"{root} has no episodes")
    samples = list(_samples(root, episodes, fps, ACTION in features))
    samples.sort(key=lambda sample: sample.name)
    return collect(root, (), _divided(samples, episodes, info), read_notes(root))


def _camera(root: Path, features: dict[str, Any], camera: str) -> str:
    """The name of a camera's feature.

    Raises:
        UserError: it has no videos.
    """
    found = [name for name, told in features.items() if told.get("dtype") == "video"]
    if not found:
        kinds = {str(told.get("dtype")) for told in features.values()}
        held = "as images in its tables" if "image" in kinds else "nowhere"
        raise UserError(f"{root} has pictures {held}, and no videos: convert it to videos with LeRobot's own program")
    if not camera:
        return found[0]
    if (named := next((name for name in (camera, IMAGES + camera) if name in found), None)) is None:
        names = ", ".join(name.removeprefix(IMAGES) for name in found)
        raise UserError(f"{root} has no camera {camera!r}; it has {names} (data.reads.camera)")
    return named


def _of_version_2(root: Path, info: dict[str, Any], key: str) -> Iterator[_Episode]:
    table, video = (info.get(name) or path for name, path in zip(("data_path", "video_path"), PATHS["v2"]))
    chunk = int(info.get("chunks_size") or 1000)
    for line in (root / "meta" / "episodes.jsonl").read_text(encoding="utf-8").splitlines():
        if not line.strip():
            continue
        told = json.loads(line)
        number = int(told["episode_index"])
        names = {"episode_chunk": number // chunk, "episode_index": number, "video_key": key}
        yield _Episode(
            number,
            int(told["length"]),
            _inside(root, table.format(**names)),
            _inside(root, video.format(**names)),
            tasks=_texts(told.get("tasks")),
        )


def _of_version_3(root: Path, info: dict[str, Any], key: str) -> Iterator[_Episode]:
    table, video = (info.get(name) or path for name, path in zip(("data_path", "video_path"), PATHS["v3"]))
    places = [f"{kind}/{part}" for kind in ("data", f"videos/{key}") for part in ("chunk_index", "file_index")]
    wanted = ["episode_index", "length", *places, f"videos/{key}/from_timestamp"]
    for file in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
        held = pq.read_schema(file).names
        for told in pq.read_table(file, columns=[*wanted, *({"tasks"} & set(held))]).to_pylist():
            at = [{"chunk_index": told[a], "file_index": told[b]} for a, b in (places[:2], places[2:])]
            yield _Episode(
                told["episode_index"],
                told["length"],
                _inside(root, table.format(**at[0])),
                _inside(root, video.format(**at[1], video_key=key)),
                start=float(told[f"videos/{key}/from_timestamp"]),
                tasks=_texts(told.get("tasks")),
            )


def _samples(root: Path, episodes: list[_Episode], fps: float, has_actions: bool) -> Iterator[Sample]:
    """A sample for each episode; those of one video share its rows."""
    by_video: dict[Path, list[_Episode]] = {}
    for episode in episodes:
        by_video.setdefault(episode.video, []).append(episode)
    for video, inside in by_video.items():
        rows = Rows(
            str(video),
            name=f"{video.stem}.npz",
            episodes=tuple((str(episode.table), episode.number) for episode in inside),
        )
        for episode in inside:
            # Half a frame earlier, so that rounded times neither lose a frame nor take one of the neighbours'.
            start = None if episode.start is None else max(0.0, episode.start - 0.5 / fps)
            end = None if episode.start is None else episode.start + (episode.length - 0.5) / fps
            yield Sample(
                path=str(video),
                name=f"episode_{episode.number:06d}",
                start=start,
                end=end,
                text=episode.tasks,
                actions=rows if has_actions else None,
            )


def _divided(samples: list[Sample], episodes: list[_Episode], info: dict[str, Any]) -> list[Sample]:
    """The samples with the dataset's own splits, ranges of episodes; with a fifth held out if there is one alone."""
    splits = info.get("splits") or {}
    of_episode: dict[str, str] = {}
    for split, told in splits.items():
        first, _, last = str(told).partition(":")
        if not first.isdecimal() or not last.isdecimal():
            raise UserError(f"{INFO}: the split {split!r} is {told!r}, and should be a range such as 0:50")
        of_episode |= {f"episode_{number:06d}": str(split) for number in range(int(first), int(last))}
    used = {split for one in episodes if (split := of_episode.get(f"episode_{one.number:06d}"))}
    if len(used) < 2:
        return hold_out(samples)
    return [replace(sample, split=of_episode[sample.name]) for sample in samples if sample.name in of_episode]


def _inside(root: Path, name: str) -> Path:
    """A path of the dataset.

    Raises:
        ValueError: it leads out of the folder.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{name} leads out of the dataset")
    return root / name


def _texts(tasks: Any) -> tuple[str, ...]:
    """The tasks of an episode."""
    return tuple(str(task) for task in tasks) if isinstance(tasks, list) else ()


@functools.lru_cache(maxsize=8)
def _table(path: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the episodes of a table's rows, and a column.

    Raises:
        OSError: it cannot be read.
        ValueError: it has no such column, or other values than numbers.
    """
    try:
        held = pq.read_schema(path).names
        if name not in held:
            raise ValueError(f"it has no column {name!r}, but {', '.join(map(repr, held))}")
        table = pq.read_table(path, columns=["episode_index", name])
    except pa.ArrowException as error:
        raise ValueError(f"{Path(path).name}: {error}") from None
    rows = np.array(table[name].to_pylist())
    if rows.dtype.kind not in "biuf":
        raise ValueError(f"its column {name!r} does not hold as many numbers in each row")
    return table["episode_index"].to_numpy(), rows if rows.ndim > 1 else rows[:, None]


def _column(path: str, number: int, name: str) -> np.ndarray:
    """The rows of one episode."""
    of, rows = _table(path, name)
    return rows[of == number].reshape(-1, rows[0].size)


def _numbers(path: str) -> list[str]:
    """The columns of a table that hold numbers, or lists of them."""
    schema = pq.read_schema(path)
    kinds = ((field.name, field.type) for field in schema)
    return [
        name for name, kind in kinds if pa.types.is_floating(kind.value_type if hasattr(kind, "value_type") else kind)
    ]

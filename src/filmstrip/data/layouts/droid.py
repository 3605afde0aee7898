"""DROID's raw recordings (Khazatsky et al. 2024): a folder for each, with a table and the videos of three cameras.

    AUTOLab/success/2023-07-07/Fri_Jul__7_09:42:23_2023/
        metadata_AUTOLab+5d05c5aa+2023-07-07-09h-42m-23s.json    which camera stood where, and the task
        trajectory.h5                                            a row for each frame
        recordings/MP4/22008760.mp4                              a video for each camera (22008760-stereo.mp4: unread)

A row's actions are done *after* its frame, so that they are moved by one here; they are the velocities of the
gripper's pose and of its opening. States are ``pose`` (``T 7``: place in m, angles in rad, opening), or any array of
the file, such as ``observation/robot_state/joint_positions``. What is trained on changes of poses
(``control.vjepa_ac:giant_droid``) sets ``data.reads.changes pose``. Tables are HDF5 files, for which h5py is needed.
Frames and rows are matched by number, as in V-JEPA 2's code; rows after the last frame are not used.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from filmstrip.data.actions import KEY, Sidecar
from filmstrip.data.layouts.arrays import leading
from filmstrip.data.sample import Sample, Source, collect, hold_out, read_notes
from filmstrip.errors import UserError

TABLE = "trajectory.h5"
CAMERAS = {"left": "left_mp4_path", "right": "right_mp4_path", "wrist": "wrist_mp4_path"}
"""Cameras, and the entries of the metadata with the paths of their videos."""
POSE = "pose"
ARRAYS = {
    KEY: ("action/cartesian_velocity", "action/gripper_velocity"),
    POSE: ("observation/robot_state/cartesian_position", "observation/robot_state/gripper_position"),
}
"""Arrays of a table that make up one of ours, side by side."""
DEPTH = 6
"""Number of folders from the one that is opened down to a recording, at most, where the layout is detected."""


@dataclass(frozen=True)
class Trajectory(Sidecar):
    """The table of a recording."""

    may_be_longer: ClassVar[bool] = True

    def array(self, name: str) -> np.ndarray:
        """One of its arrays, a row for each frame; ``actions`` are those that lead to each frame."""
        try:
            with _h5py().File(self.path, "r") as file:
                for part in ARRAYS.get(name, (name,)):
                    if part not in file:
                        raise KeyError(f"it has no array {part!r}")
                parts = [np.asarray(file[part]) for part in ARRAYS.get(name, (name,))]
        except OSError as error:  # h5py's own text has the addresses of its code
            raise ValueError(f"it is no readable HDF5 file ({str(error).splitlines()[0][:80]})") from None
        rows = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
        return leading(rows, len(rows)) if name == KEY else rows

    def content(self) -> bytes:
        """An ``.npz`` of actions and poses.

        Raises:
            OSError: the table cannot be read.
        """
        try:
            arrays: dict[str, Any] = {name: self.array(name) for name in ARRAYS}
        except (ValueError, KeyError) as error:
            raise OSError(f"{self.path}: {error}") from None
        file = io.BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()

    @property
    def label(self) -> str:
        """The name of its file, if it is made one, for messages."""
        return f"{PurePosixPath(self.path).stem}.npz"


def detect(root: Path) -> bool:
    """Whether the first folder, or the first in that, and so on, is a recording."""
    for _ in range(DEPTH):
        if (root / TABLE).is_file():
            return True
        try:
            root = min(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        except (OSError, ValueError):
            return False
    return False


def open_droid(root: Path, camera: str = "") -> Source:
    """The recordings below a folder as one camera saw them, by default the left one; a fifth is held out.

    Folders without metadata are incomplete and left out, as DROID's authors say.

    Raises:
        UserError: h5py is not installed, there is no such camera, or no recording.
    """
    _h5py()
    if (entry := CAMERAS.get(camera or "left")) is None:
        raise UserError(f"DROID has no camera {camera!r}; it has {', '.join(CAMERAS)} (data.reads.camera)")
    samples = []
    for folder, told in _recordings(root):
        video = folder / "recordings" / "MP4" / PurePosixPath(str(told.get(entry, ""))).name
        if video.suffix != ".mp4" or not video.is_file():
            continue
        samples.append(
            Sample(
                path=str(video),
                name=f"{folder.relative_to(root).as_posix()}/{video.stem}",
                text=(str(told["current_task"]),) if told.get("current_task") else (),
                actions=Trajectory(str(folder / TABLE)),
            )
        )
    if not samples:
        raise UserError(
            f"{root} holds no recordings as DROID's: expected folders with {TABLE}, metadata_*.json and the videos "
            f"that these name as {entry}, in recordings/MP4"
        )
    return collect(root, (), hold_out(samples), read_notes(root))


def _recordings(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folders of recordings with their metadata, in a fixed order."""
    for folder, below, files in os.walk(root):
        below.sort()
        if TABLE not in files:
            continue
        below.clear()
        name = min((file for file in files if file.startswith("metadata") and file.endswith(".json")), default=None)
        if name is None:
            continue
        try:
            told = json.loads((Path(folder) / name).read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(told, dict):
            yield Path(folder), told


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError:
        raise UserError("DROID's tables are HDF5 files: pip install 'filmstrip[robots]', which brings h5py") from None
    return h5py

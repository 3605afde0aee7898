"""Actions that accompany videos, from a sidecar file to the rows of a clip.

A sidecar holds one row for each frame of its video. Row ``t`` is the action between frame ``t - 1`` and frame ``t``:
it leads to frame ``t``; row 0 is the action before the video. One-dimensional integers are discrete actions; anything
else is continuous. Other arrays of an ``.npz``, a row for each frame, can be read as states.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal

import numpy as np

from filmstrip.data.config import Clip
from filmstrip.data.poses import POSE_DIM, changes_of_poses
from filmstrip.errors import UserError
from filmstrip.video.decoder import DecodeError

SIDECARS = (".actions.npy", ".actions.npz")
"""Suffixes of a sidecar, appended to the stem of its video, in order of preference."""
KEY = "actions"
"""Name of the array of actions in an ``.npz`` file."""


Changes = Literal["plain", "pose"]
"""Computation of a change of states: by subtraction, or for a gripper's pose, whose angles are a rotation's."""


@dataclass(frozen=True, kw_only=True)
class ActionSpace:
    """The actions of a collection: one of ``num_actions``, or ``action_dim`` numbers; the other field is zero."""

    num_actions: int = 0
    action_dim: int = 0
    names: tuple[str, ...] = ()
    """Names of discrete actions in order, if known."""

    @property
    def notes(self) -> dict[str, object]:
        """The entries of ``dataset.json`` that describe the actions."""
        return {"actions": self.names or self.num_actions} if self.discrete else {"action_dim": self.action_dim}

    @property
    def discrete(self) -> bool:
        """Whether actions are discrete instead of vectors."""
        return self.num_actions > 0


@dataclass(frozen=True)
class Sidecar:
    """Location of a video's actions: a file, or ``size`` bytes of an archive starting at ``offset``."""

    path: str
    offset: int | None = None
    size: int | None = None
    name: str = ""
    """Name of the member in an archive; empty for a file of its own."""
    may_be_longer: ClassVar[bool] = False
    """Whether rows after the video's last frame are no fault."""

    def read(self) -> np.ndarray:
        """The rows: ``T`` int64 for discrete actions, ``T A`` float32 for continuous ones.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file holds no actions; the message says what it holds instead.
        """
        try:
            with np.errstate(all="ignore"):
                return as_rows(self.array(KEY))
        except (ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
            raise ValueError(f"its actions {self.label} cannot be used: {error}") from None

    def read_states(self, name: str) -> np.ndarray:
        """The array ``name`` beside the actions, ``T S`` float32, such as where a gripper is at each frame.

        Raises:
            OSError: the file cannot be read.
            ValueError: it has no such array, or one of another shape; the message says what it holds instead.
        """
        try:
            with np.errstate(all="ignore"):
                rows = self.array(name)
            if rows.ndim != 2 or rows.dtype.kind not in "biuf" or not rows.shape[1] or not np.isfinite(rows).all():
                raise ValueError(
                    f"{name!r} is {rows.dtype} of shape {rows.shape}: expected finite numbers of shape (frames, size)"
                )
            return rows.astype(np.float32)
        except (ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
            raise ValueError(f"its states in {self.label} cannot be used: {error}") from None

    def array(self, name: str) -> np.ndarray:
        """One of its arrays, as it is.

        Raises:
            OSError: the file cannot be read.
            ValueError, KeyError: it has no such array.
        """
        return _load(io.BytesIO(self.content()), name)

    def content(self) -> bytes:
        """The bytes of the file.

        Raises:
            OSError: it cannot be read.
        """
        with open(self.path, "rb") as file:
            file.seek(self.offset or 0)
            return file.read() if self.size is None else file.read(self.size)

    @property
    def label(self) -> str:
        """The file's own name, for messages."""
        return self.name or Path(self.path).name


def beside(video: Path, files: Container[str]) -> Sidecar | None:
    """The sidecar of a video, given the names of the files in its folder."""
    name = next((video.stem + suffix for suffix in SIDECARS if video.stem + suffix in files), None)
    return None if name is None else Sidecar(str(video.parent / name))


def space_of(sidecars: Sequence[Sidecar], given: ActionSpace | None) -> ActionSpace | None:
    """The action space of a collection: ``given``, or inferred from its sidecars; None if it has none.

    Sidecars that cannot be read are skipped: they are reported together with their video.

    Raises:
        UserError: some are discrete and some are not, or their lengths differ.
    """
    if given is not None or not sidecars:
        return given
    spaces: dict[ActionSpace, Sidecar] = {}
    highest = 0
    for sidecar in sidecars:
        try:
            rows = sidecar.read()
        except (OSError, ValueError):
            continue
        if rows.ndim == 2:
            spaces.setdefault(ActionSpace(action_dim=rows.shape[1]), sidecar)
            if len(spaces) == 1 and not highest:
                break  # vectors have a length; only of names must all be seen to know how many there are
        else:
            highest = max(highest, 1 + int(rows.max(initial=0)))
    if highest:
        spaces[ActionSpace(num_actions=highest)] = sidecars[0]
    if len(spaces) > 1:
        raise UserError(f"{sidecars[0].path}: some videos of the collection have discrete actions, others vectors")
    return next(iter(spaces), ActionSpace(action_dim=1))


def check_clip(space: ActionSpace, clip: Clip) -> None:
    """Check that a clip has consecutive frames if actions are discrete, since those cannot be summed.

    Raises:
        UserError: the clip skips frames; the message says what to set.
    """
    if space.discrete and (clip.stride != 1 or clip.sampling != "dense" or clip.snap):
        raise UserError(
            "the videos have discrete actions, which cannot be summed over the frames that a clip skips "
            f"(data.clip: {clip.sampling}, stride {clip.stride}{', snap' * clip.snap}): set --data.clip.sampling "
            "dense --data.clip.stride 1 without snap, or read no actions (--data.reads.no-actions)"
        )


def clip_actions(
    sidecar: Sidecar | None,
    space: ActionSpace,
    *,
    path: str,
    frame_times: np.ndarray,
    shown: Sequence[np.ndarray],
    truncated: bool = False,
) -> list[np.ndarray]:
    """The actions of each clip of a video: ``T`` int64, or ``T A`` float32.

    ``frame_times`` are the times of all frames of the video, ``shown`` those of each clip's frames (seconds). If
    frames are skipped, continuous actions are summed: entry ``t`` is the sum since frame ``t - 1`` of the clip. A
    repeated frame has zeros.

    Raises:
        DecodeError: the sidecar cannot be used, or does not have a row for each frame; or actions are discrete and
            the clip repeats or skips frames (the video is too short, or its frames are unevenly spaced).
    """
    try:
        rows = read_rows(sidecar, space, len(frame_times), truncated)
        places = [_places(frame_times, times) for times in shown]
        return [_pick(rows, place) if space.discrete else _sum(rows, place) for place in places]
    except ValueError as error:
        raise DecodeError(path, 0, str(error)) from None


def clip_states(
    sidecar: Sidecar, name: str, *, path: str, frame_times: np.ndarray, shown: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """The states at the frames of each clip of a video, ``T S`` float32; arguments as of :func:`clip_actions`.

    Raises:
        DecodeError: the states cannot be read, or there are fewer than frames.
    """
    try:
        rows = _states(sidecar, name, len(frame_times))
        return [rows[_places(frame_times, times)] for times in shown]
    except ValueError as error:
        raise DecodeError(path, 0, str(error)) from None


def clip_changes(
    sidecar: Sidecar, name: str, of: Changes, *, path: str, frame_times: np.ndarray, shown: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Changes of the states since the clip's previous frame, ``T S`` float32; arguments as of :func:`clip_actions`.

    For the first frame, the change over as many frames as for the second.

    Raises:
        DecodeError: the states cannot be read, or there are fewer than frames.
    """
    try:
        rows = _states(sidecar, name, len(frame_times))
        found = []
        for times in shown:
            places = _places(frame_times, times)
            at = rows[np.concatenate([[max(0, _start(places) - 1)], places])].astype(np.float64)
            found.append((changes_of_poses(at) if of == "pose" else np.diff(at, axis=0)).astype(np.float32))
        return found
    except ValueError as error:
        raise DecodeError(path, 0, str(error)) from None


def check_changes(of: Changes, name: str, state_dim: int) -> None:
    """Check that states are what they have to be for their changes to be actions.

    Raises:
        UserError: poses have too few numbers.
    """
    if of == "pose" and state_dim < POSE_DIM:
        raise UserError(
            f"the states {name!r} have {state_dim} numbers: the pose of a gripper is its place (3), its angles (3) "
            "and what else is known of it (data.reads.changes)"
        )


def read_rows(sidecar: Sidecar | None, space: ActionSpace, num_frames: int, truncated: bool = False) -> np.ndarray:
    """The rows of a video of ``num_frames``: ``T`` int64, or ``T A`` float32.

    Raises:
        ValueError: there are none, they do not fit the collection's action space, or there is not one per frame.
        OSError: the file cannot be read.
    """
    if sidecar is None:
        raise ValueError("it has no actions, but other videos of the collection do")
    rows = sidecar.read()
    _check_rows(rows, sidecar, space, num_frames, truncated)
    return rows


def _states(sidecar: Sidecar, name: str, num_frames: int) -> np.ndarray:
    rows = sidecar.read_states(name)
    if len(rows) < num_frames:
        raise ValueError(f"its states in {sidecar.label} have {len(rows)} rows, but it has {num_frames} frames")
    return rows


def _load(file: BinaryIO, key: str = KEY) -> np.ndarray:
    values = np.load(file, allow_pickle=False)
    if isinstance(values, np.ndarray):
        if key != KEY:
            raise ValueError(f"a .npy holds actions alone: write an .npz with the arrays {KEY!r} and {key!r}")
        return values
    with values:
        if key not in values.files:
            raise ValueError(f"it has no array {key!r}, but {', '.join(map(repr, values.files)) or 'none'}")
        return values[key]


def as_rows(values: np.ndarray) -> np.ndarray:
    """Actions as ``T`` int64 (discrete) or ``T A`` float32 (continuous).

    Raises:
        ValueError: they have more than two dimensions, are not numbers, negative (discrete) or not finite.
    """
    if values.ndim not in (1, 2) or values.dtype.kind not in "biuf" or 0 in values.shape[1:]:
        raise ValueError(
            f"expected whole numbers of shape (frames,) or numbers of shape (frames, size), "
            f"got {values.dtype} of shape {values.shape}"
        )
    if values.dtype.kind != "f" and (values.ndim == 1 or values.shape[1] == 1):
        if values.size and values.min() < 0:
            raise ValueError(f"discrete actions count from 0, and there is {values.min()}")
        return values.reshape(len(values)).astype(np.int64)
    if not np.isfinite(values).all():
        raise ValueError("some numbers are infinite or not a number")
    return values.reshape(len(values), -1).astype(np.float32)


def _check_rows(rows: np.ndarray, sidecar: Sidecar, space: ActionSpace, num_frames: int, truncated: bool) -> None:
    if len(rows) != num_frames and not ((truncated or sidecar.may_be_longer) and len(rows) > num_frames):
        raise ValueError(
            f"its actions {sidecar.label} have {len(rows)} rows, but it has {num_frames} frames: expected a row for "
            "each frame, the action that leads to it"
        )
    fits = (
        rows.ndim == 1 and rows.max(initial=0) < space.num_actions
        if space.discrete
        else rows.shape[1:] == (space.action_dim,)
    )
    if not fits:
        held = f"rows of {rows.shape[1]} numbers" if rows.ndim == 2 else f"actions up to {rows.max(initial=0)}"
        expected = f"actions 0 to {space.num_actions - 1}" if space.discrete else f"rows of {space.action_dim}"
        raise ValueError(f"its actions {sidecar.label} hold {held}; the collection has {expected}")


def _places(frame_times: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Indices of the video's frames that a clip shows, from their times."""
    middles = (frame_times[1:] + frame_times[:-1]) / 2
    return np.searchsorted(middles, times)


def _pick(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    steps = np.diff(places)
    if (steps != 1).any():
        what = "is too short for a clip" if (steps == 0).any() else "has unevenly spaced frames"
        raise ValueError(
            f"it {what} ({len(rows)} frames, {len(places)} requested), and discrete actions need consecutive frames"
        )
    return rows[places]


def _sum(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Sums of actions since the clip's previous frame; for the first frame, over as many frames as for the second."""
    starts = np.concatenate([[_start(places)], places[:-1] + 1])
    total = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0, dtype=np.float64)])
    return (total[places + 1] - total[starts]).astype(np.float32)


def _start(places: np.ndarray) -> int:
    """Row of the first action that leads to a clip's first frame, as many rows before it as for the second."""
    first = max(1, int(places[1] - places[0])) if len(places) > 1 else 1
    return max(0, int(places[0]) + 1 - first)

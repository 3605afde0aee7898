"""Actions beside videos: what was done between one frame and the next, from a file to the rows of a clip.

A sidecar holds one row for each frame of its video. Row ``t`` is what was done between frame ``t - 1`` and frame
``t``: it leads to frame ``t``; row 0 belongs to what came before the video. Whole numbers in one dimension are
discrete actions; all else is continuous.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from filmstrip.data.config import Clip
from filmstrip.errors import UserError
from filmstrip.video.decoder import DecodeError

SIDECARS = (".actions.npy", ".actions.npz")
"""What follows the stem of a video in the name of its sidecar, in order of preference."""
KEY = "actions"
"""The array of an ``.npz`` file that holds them."""


@dataclass(frozen=True, kw_only=True)
class ActionSpace:
    """What the actions of a collection are: one of ``num_actions``, or ``action_dim`` numbers; the other is zero."""

    num_actions: int = 0
    action_dim: int = 0
    names: tuple[str, ...] = ()
    """What discrete actions are called, in order, where somebody said."""

    @property
    def notes(self) -> dict[str, object]:
        """What ``dataset.json`` says of them."""
        return {"actions": self.names or self.num_actions} if self.discrete else {"action_dim": self.action_dim}

    @property
    def discrete(self) -> bool:
        """Whether an action is one of several, instead of a vector."""
        return self.num_actions > 0


@dataclass(frozen=True)
class Sidecar:
    """Where the actions of a video lie: a file, or ``size`` bytes of an archive from ``offset`` on."""

    path: str
    offset: int | None = None
    size: int | None = None
    name: str = ""
    """The member's name in an archive; otherwise the path tells."""

    def read(self) -> np.ndarray:
        """The rows: ``T`` int64 for discrete actions, ``T A`` float32 for continuous ones.

        Raises:
            OSError: the file cannot be read.
            ValueError: it holds no actions; says what it holds instead.
        """
        try:
            with np.errstate(all="ignore"):
                return as_rows(_load(io.BytesIO(self.content())))
        except (ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
            raise ValueError(f"its actions {self.label} cannot be used: {error}") from None

    def content(self) -> bytes:
        """The file as it is.

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
    """What the actions of a collection are: as ``given``, or found out from its sidecars; none where it has none.

    Sidecars that cannot be read are passed over: they are reported when their video is.

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
    """See that a clip's frames follow each other where actions are discrete: they do not add up.

    Raises:
        UserError: it leaves frames out; says what to set.
    """
    if space.discrete and (clip.stride != 1 or clip.sampling != "dense" or clip.snap):
        raise UserError(
            "the videos have discrete actions, which cannot be added up over the frames that a clip leaves out "
            f"(data.clip: {clip.sampling}, stride {clip.stride}{', snap' * clip.snap}): set --data.clip.sampling "
            "dense --data.clip.stride 1 without snap, or do without actions (--data.reads.no-actions)"
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

    ``frame_times`` are those of all frames of the video, ``shown`` those of each clip's frames (seconds). Where
    frames are left out, continuous actions are summed: entry ``t`` is all that was done since frame ``t - 1`` of the
    clip. A frame that is shown again took nothing to get to: zeros.

    Raises:
        DecodeError: the sidecar cannot be used, or does not have a row for each frame; or actions are discrete and
            the clip shows a frame twice or leaves some out (the video is too short, or its frames come unevenly).
    """
    try:
        rows = read_rows(sidecar, space, len(frame_times), truncated)
        places = [_places(frame_times, times) for times in shown]
        return [_pick(rows, place) if space.discrete else _sum(rows, place) for place in places]
    except ValueError as error:
        raise DecodeError(path, 0, str(error)) from None


def read_rows(sidecar: Sidecar | None, space: ActionSpace, num_frames: int, truncated: bool = False) -> np.ndarray:
    """The rows of a video of ``num_frames``: ``T`` int64, or ``T A`` float32.

    Raises:
        ValueError: there are none, they are not of the collection's kind, or not one for each frame.
        OSError: the file cannot be read.
    """
    if sidecar is None:
        raise ValueError("it has no actions, which other videos of the collection have")
    rows = sidecar.read()
    _check_rows(rows, sidecar, space, num_frames, truncated)
    return rows


def _load(file: BinaryIO) -> np.ndarray:
    values = np.load(file, allow_pickle=False)
    if isinstance(values, np.ndarray):
        return values
    with values:
        if KEY not in values.files:
            raise ValueError(f"it has no array {KEY!r}, but {', '.join(map(repr, values.files)) or 'none'}")
        return values[KEY]


def as_rows(values: np.ndarray) -> np.ndarray:
    """Actions in one of their two forms: ``T`` int64, or ``T A`` float32.

    Raises:
        ValueError: they have more than two dimensions, are no numbers, negative (discrete) or not finite.
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
    if len(rows) != num_frames and not (truncated and len(rows) > num_frames):
        raise ValueError(
            f"its actions {sidecar.label} have {len(rows)} rows, but it has {num_frames} frames: expected a row for "
            "each frame, of what was done just before it"
        )
    fits = (
        rows.ndim == 1 and rows.max(initial=0) < space.num_actions
        if space.discrete
        else rows.shape[1:] == (space.action_dim,)
    )
    if not fits:
        held = f"rows of {rows.shape[1]} numbers" if rows.ndim == 2 else f"actions up to {rows.max(initial=0)}"
        wanted = f"actions 0 to {space.num_actions - 1}" if space.discrete else f"rows of {space.action_dim}"
        raise ValueError(f"its actions {sidecar.label} hold {held}; the collection has {wanted}")


def _places(frame_times: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Which frames of the video were shown, by when they begin."""
    middles = (frame_times[1:] + frame_times[:-1]) / 2
    return np.searchsorted(middles, times)


def _pick(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    steps = np.diff(places)
    if (steps != 1).any():
        what = "is too short for a clip" if (steps == 0).any() else "has frames at uneven times"
        raise ValueError(
            f"it {what} ({len(rows)} frames, {len(places)} asked for), and discrete actions belong to frames that "
            "follow each other"
        )
    return rows[places]


def _sum(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """What was done since the clip's previous frame; before the first, over as many frames as before the second."""
    first = max(1, int(places[1] - places[0])) if len(places) > 1 else 1
    starts = np.concatenate([[max(0, places[0] + 1 - first)], places[:-1] + 1])
    total = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0, dtype=np.float64)])
    return (total[places + 1] - total[starts]).astype(np.float32)

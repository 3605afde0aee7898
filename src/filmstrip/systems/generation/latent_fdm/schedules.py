"""In which order the frames of a video are made, and which known ones are seen meanwhile.

A schedule is a function of numbers alone: how long the video is, which of its frames are given, how many frames the
network sees at once. Of videos whose first frames are given, stages are those of the published code.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal, NamedTuple

from filmstrip.errors import UserError

Schedule = Literal["autoregressive", "long_range", "hierarchy_2"]
"""``autoregressive``: from the first frame to the last, some at a time, from the known ones nearest to them;
``long_range``: the same, but half of what is seen are frames that were given, however long ago; ``hierarchy_2``:
first frames from all over the video, then those between, from known ones on both sides."""


class Stage(NamedTuple):
    """One sampling from noise."""

    observed: tuple[int, ...]
    """Numbers of the frames that are seen, ascending."""
    latent: tuple[int, ...]
    """Numbers of the frames that are made, ascending."""


def stages(
    schedule: Schedule, num_frames: int, given: Collection[int], *, max_frames: int, at_once: int | None = None
) -> list[Stage]:
    """The stages that make all frames ``0..num_frames - 1`` which are not ``given``.

    ``max_frames`` is the number of frames that the network sees at once (the paper's K), of which ``at_once`` are
    made (by default half of them; or all that are missing, where the whole video fits). If nothing is given, the
    first stage makes ``max_frames`` of nothing, which then count as given.

    Raises:
        UserError: a given frame does not exist, or too few frames are seen beside those that are made.
    """
    whole = at_once is None and 0 < num_frames <= max_frames
    at_once = max(1, max_frames // 2) if at_once is None else at_once
    least = 3 if schedule == "hierarchy_2" else 2  # where frames are filled in, one on each side is seen
    if max_frames < least or not 0 < at_once < max_frames:
        raise UserError(
            f"a network that sees {max_frames} frames cannot make {at_once} of them at once by the schedule "
            f"{schedule}: it needs {least} frames or more, and one at least that is seen beside those that are made"
        )
    if outside := [at for at in given if not 0 <= at < num_frames]:
        raise UserError(f"frame {outside[0]} is given of a video of {num_frames} frames, 0 to {num_frames - 1}")
    if whole:
        missing = tuple(at for at in range(num_frames) if at not in given)
        return [Stage(tuple(sorted(given)), missing)] if missing else []
    known, found = set(given), []

    def make(observed: Sequence[int], latent: Sequence[int]) -> None:
        found.append(Stage(tuple(sorted(observed)), tuple(latent)))
        known.update(latent)

    fills = schedule == "hierarchy_2"
    if fills:
        at_once = min(at_once, max_frames - 2)
    if not known:
        count = min(max_frames, num_frames)
        step = (num_frames - 1) / max(1, count - 1) if fills else 1
        make((), [int(at * step) for at in range(count)])
    elif fills and at_once > 1 and (missing := [at for at in range(num_frames) if at not in known]):
        make(_spaced(sorted(known), max_frames - at_once), _spaced(missing, at_once))
    anchors = frozenset(given) or frozenset(known)
    while missing := [at for at in range(num_frames) if at not in known]:
        make(*_NEXT[schedule](known, missing, anchors, max_frames, at_once))
    return found


Choice = tuple[list[int], list[int]]
"""Observed and latent frames."""


def _autoregressive(known: set[int], missing: list[int], anchors: frozenset[int], total: int, at_once: int) -> Choice:
    latent = missing[:at_once]
    return _nearest(known, latent)[: total - at_once], latent


def _long_range(known: set[int], missing: list[int], anchors: frozenset[int], total: int, at_once: int) -> Choice:
    latent, seen = missing[:at_once], total - at_once
    observed = _nearest(known, latent)[: max(1, seen // 2)]
    far = [at for at in _nearest(anchors, latent) if at not in observed]
    return observed + far[: seen - len(observed)], latent


def _filled_in(known: set[int], missing: list[int], anchors: frozenset[int], total: int, at_once: int) -> Choice:
    """The next missing frames, of which there are fewer where known ones between them leave no room on both sides."""
    for count in range(at_once, 0, -1):
        latent, room = missing[:count], total - count
        inside = [at for at in known if latent[0] < at < latent[-1]]
        if room - len(inside) >= 2:
            break
    after = sorted(at for at in known if at > latent[-1])[: (room - len(inside)) // 2]
    before = sorted((at for at in known if at < latent[0]), reverse=True)
    return inside + after + before[: room - len(inside) - len(after)], latent


_NEXT: dict[Schedule, Callable[[set[int], list[int], frozenset[int], int, int], Choice]] = {
    "autoregressive": _autoregressive,
    "long_range": _long_range,
    "hierarchy_2": _filled_in,
}


def _nearest(frames: Collection[int], latent: Sequence[int]) -> list[int]:
    """Frames in the order of their distance from those between the first and the last latent one; earlier first."""
    return sorted(frames, key=lambda at: (max(latent[0] - at, at - latent[-1], 0), at))


def _spaced(frames: Sequence[int], count: int) -> list[int]:
    """So many frames or fewer, evenly spaced, from the first to the last."""
    ends = {0, *(-(-at * len(frames) // max(1, count - 1)) - 1 for at in range(1, count))}
    return [frames[at] for at in sorted(ends)]

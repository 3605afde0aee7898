"""Converting sets that are kept as arrays into a folder of videos with their actions beside them.

Each video is written under its name only once it is complete, and after its actions: existing videos are complete,
and converting again resumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from filmstrip.data.actions import SIDECARS, Sidecar, as_rows, space_of
from filmstrip.data.layouts import ARRAYS
from filmstrip.data.synthetic.generated import NOTES
from filmstrip.data.tools.parallel import each
from filmstrip.data.tools.prepare import read_settings
from filmstrip.errors import NO_ROOM, UserError
from filmstrip.files import no_parts_left, replacing, write_json
from filmstrip.video.write import LOSSLESS, write_video

SETTINGS = "convert.json"


@dataclass(frozen=True)
class ConversionJob:
    """One file of arrays, whose videos go into ``folder``."""

    layout: str
    path: Path
    folder: Path
    lossless: bool


@dataclass(frozen=True)
class ConversionOutcome:
    """The result for one file."""

    path: str
    written: int = 0
    there: int = 0
    error: str = ""
    """Why it could not be converted, or only in part."""


@dataclass(frozen=True)
class Conversion:
    """The result of converting a dataset."""

    out: str
    outcomes: tuple[ConversionOutcome, ...]

    @property
    def bad(self) -> tuple[ConversionOutcome, ...]:
        """Files that were converted in part or not at all."""
        return tuple(outcome for outcome in self.outcomes if outcome.error)

    def text(self) -> str:
        """The report for people."""
        there, written = (sum(getattr(o, key) for o in self.outcomes) for key in ("there", "written"))
        lines = [f"{self.out}: {there + written} videos from {len(self.outcomes)} files ({there} were there already)"]
        lines += [f"left out  {outcome.path}: {outcome.error}" for outcome in self.bad]
        return "\n".join([*lines, f"train on it with --data {self.out}"])


def convert_layout(layout: str, path: Path, out: Path, *, lossless: bool = False, workers: int = 2) -> Conversion:
    """Convert a set of a layout of arrays into ``out/split/*.mp4``, or ``out/split/class/*.mp4``, with the actions
    that it has in ``*.actions.npy``.

    ``lossless`` keeps every pixel (RGB in H.264), otherwise the quality is high (CRF 10).

    Raises:
        UserError: there is no such layout or the set is not in it; or ``out`` holds something else.
        OSError: ``out`` cannot be written, or there is no room left; what was converted stays.
    """
    if layout not in ARRAYS:
        raise UserError(
            f"there is no layout of arrays {layout!r}; there are {', '.join(ARRAYS)}; cvat, via and label_studio "
            "of exported labels; and loveu_tgve of edits"
        )
    path, out = Path(path).expanduser(), Path(out).expanduser()
    files = ARRAYS[layout].array_files(path)
    _claim(out, {"layout": layout, "source": str(path.absolute()), "lossless": lossless})
    for split in {split for split, _ in files}:
        (out / split).mkdir(parents=True, exist_ok=True)
    jobs = [ConversionJob(layout, file, out / split, lossless) for split, file in files]
    results = each(convert_file, jobs, workers=workers, title="converting", crashed=_crashed)
    with no_parts_left({job.folder for job in jobs}):
        outcomes = {outcome.path: outcome for outcome in results}
    _write_notes(out)
    return Conversion(str(out), tuple(outcomes[str(job.path)] for job in jobs))


def convert_file(job: ConversionJob) -> ConversionOutcome:
    """Write the videos of one file; those that exist already are skipped.

    Raises:
        OSError: there is no room for them.
    """
    layout, written, there = ARRAYS[job.layout], 0, 0
    try:
        for episode in layout.read_arrays(job.path):
            target = job.folder / f"{episode.name}.mp4"
            if target.exists():
                there += 1
                continue
            if episode.actions is not None:
                _save(target.with_suffix(SIDECARS[0]), as_rows(episode.actions))
            codec, crf = (LOSSLESS, 0) if job.lossless else ("libx264", 10)
            write_video(target, episode.video, layout.FPS, codec=codec, crf=crf, gop=8, preset="veryfast")
            written += 1
    except (UserError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise OSError(error.errno, error.strerror, str(job.folder)) from None  # FFmpeg's own cannot be pickled
        return ConversionOutcome(str(job.path), written, there, error=str(error))
    return ConversionOutcome(str(job.path), written, there)


def _crashed(job: ConversionJob, reason: str) -> ConversionOutcome:
    return ConversionOutcome(str(job.path), error=reason)


def _save(path: Path, actions: np.ndarray) -> None:
    with replacing(path, durable=False) as part:
        np.save(part, actions)


def _claim(out: Path, settings: dict[str, str | bool]) -> None:
    """Note what ``out`` is converted from, or see that it is the same as before."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / SETTINGS
    if path.exists():
        if read_settings(path) != settings:
            raise UserError(
                f"{out} was converted from something else or otherwise ({path.name}): give another folder"
            )
    elif any(out.iterdir()):
        raise UserError(f"{out} holds other files already: use a new or empty folder")
    else:
        write_json(settings, path)


def _write_notes(out: Path) -> None:
    """What the actions are, so that opening the set need not read them all."""
    sidecars = [Sidecar(str(path)) for path in sorted(out.glob(f"*/*{SIDECARS[0]}"))]
    space = space_of(sidecars, None)
    if space is not None:
        write_json({"directional": True, **space.notes}, out / NOTES)

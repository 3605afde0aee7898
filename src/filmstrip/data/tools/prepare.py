"""Preparing a collection for training: copies with a short side, short GOPs and streams that decode fast.

Frame times stay as they are. A copy takes its name only once it was read back and compared with its source, so that
existing copies are valid, and preparing again resumes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

import av

from filmstrip.data.actions import Sidecar
from filmstrip.data.files import VideoFile, file_of, files_of
from filmstrip.data.layouts.manifest import cell_of
from filmstrip.data.sample import Source
from filmstrip.data.sources import open_videos
from filmstrip.data.synthetic.generated import NOTES
from filmstrip.data.tools.parallel import each
from filmstrip.data.tools.reencode import Recipe, reencode
from filmstrip.errors import NO_ROOM, UserError
from filmstrip.files import append_line, no_parts_left, write_bytes, write_csv, write_json
from filmstrip.video.decoder import DecodeError

LEDGER, SETTINGS = "prepared.jsonl", "prepare.json"


@dataclass(frozen=True)
class CopyJob:
    """One file to copy."""

    file: VideoFile
    target: Path
    recipe: Recipe


@dataclass(frozen=True)
class CopyOutcome:
    """The result for one file; a line of the ledger."""

    name: str
    target: str = ""
    error: str = ""
    """Reason why there is no copy."""
    flaw: str = ""
    """Defect of the source, whose readable part was copied."""
    stamp: tuple[int, int] = (0, 0)
    """Size and modification time of the source, to detect changes."""
    num_frames: int = 0
    psnr: float = 0.0
    bytes: int = 0
    again: bool = field(default=False, compare=False)
    """Whether the copy existed already."""


@dataclass(frozen=True)
class Preparation:
    """The result of preparing a collection."""

    out: str
    outcomes: tuple[CopyOutcome, ...]

    @cached_property
    def bad(self) -> tuple[CopyOutcome, ...]:
        """Files without a copy."""
        return tuple(outcome for outcome in self.outcomes if outcome.error)

    @cached_property
    def flawed(self) -> tuple[CopyOutcome, ...]:
        """Truncated or damaged files, of which the readable part was copied."""
        return tuple(outcome for outcome in self.outcomes if outcome.flaw)

    def text(self) -> str:
        """The report for people."""
        good = [outcome for outcome in self.outcomes if not outcome.error]
        there = sum(outcome.again for outcome in good)
        lines = [
            f"{self.out}: {len(good)} videos ({there} were there already), {len(self.bad)} could not be prepared",
            f"{sum(o.stamp[0] for o in good) / 1e6:.4g} MB became {sum(o.bytes for o in good) / 1e6:.4g} MB",
        ]
        if good:
            lines.append(f"worst PSNR against the source: {min(o.psnr for o in good):.1f} dB")
        lines += [f"left out  {outcome.name}: {outcome.error}" for outcome in self.bad]
        lines += [f"flawed    {outcome.name}: {outcome.flaw}" for outcome in self.flawed]
        return "\n".join([*lines, f"train on it with --data {self.out}"])


def prepare_collection(
    path: Path,
    out: Path,
    *,
    short_side: int = 256,
    gop: int = 8,
    crf: int = 20,
    workers: int = 2,
    sound: bool = True,
    fps: float | None = None,
) -> Preparation:
    """Copy a collection (a folder, a manifest or shards) into ``out``, with a manifest of labels and splits.

    ``fps`` is as in :func:`~filmstrip.data.sources.open_path`. Videos whose short side is smaller keep their size.
    Files that cannot be read are reported and left out.

    Raises:
        UserError: there is no collection; or ``out`` lies inside it, or was prepared otherwise.
        OSError: ``out`` cannot be written, or there is no room left: a disk that is full is no bad video. What was
            copied stays, and the manifest is as it was.
    """
    source, out = open_videos(path, fps), Path(out).expanduser()
    if out.resolve().is_relative_to(source.root.resolve()) and not Path(path).is_file():
        raise UserError(f"{out} lies inside {path}, which would then hold every video twice: give a folder elsewhere")
    if any(sample.is_image for sample in source.samples):
        raise UserError(f"{path} holds images, which load fast as they are: train on it with --data {path}")
    recipe = Recipe(short_side=short_side, gop=gop, crf=crf, sound=sound)
    _claim(out, {"source": str(Path(path).absolute()), **asdict(recipe)})
    targets = _targets(files_of(source))
    known = _read_ledger(out)
    outcomes = {file: known[file.name] for file, target in targets.items() if _still_good(file, target, out, known)}
    jobs = [CopyJob(file, out / target, recipe) for file, target in targets.items() if file not in outcomes]
    by_name = {file.name: file for file in targets}
    prepared = each(prepare_file, jobs, workers=workers, title="preparing", crashed=_crashed)
    with no_parts_left({job.target.parent for job in jobs}), contextlib.closing(prepared):
        for outcome in prepared:
            outcome = replace(outcome, target=targets[by_name[outcome.name]])
            outcomes[by_name[outcome.name]] = outcome
            append_line(json.dumps(asdict(outcome)), out / LEDGER)
    if any(not outcome.error for outcome in outcomes.values()):
        _write_manifest(out, source, outcomes)
    return Preparation(str(out), tuple(outcomes[file] for file in targets))


def prepare_file(job: CopyJob) -> CopyOutcome:
    """Copy one file, unless it cannot be read.

    Raises:
        OSError: there is no room for the copy.
    """
    try:
        result = reencode(job.file.open(), job.target, job.recipe)
    except (UserError, OSError, av.FFmpegError) as error:
        if isinstance(error, (OSError, av.FFmpegError)) and error.errno in NO_ROOM:
            raise OSError(error.errno, error.strerror, str(job.target)) from None  # FFmpeg's own cannot be pickled
        return CopyOutcome(job.file.name, error=getattr(error, "reason", None) or str(error))
    return CopyOutcome(
        job.file.name,
        flaw=result.flaw,
        stamp=job.file.stamp(),
        num_frames=result.num_frames,
        psnr=round(result.psnr, 2),
        bytes=job.target.stat().st_size,
    )


def _crashed(job: CopyJob, reason: str) -> CopyOutcome:
    return CopyOutcome(job.file.name, error=reason)


def _claim(out: Path, settings: dict[str, str | int]) -> None:
    """Note how ``out`` is prepared, or see that it is the same as before."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / SETTINGS
    if path.exists():
        before = {"sound": False, **read_settings(path)}  # older copies have none
        differing = [f"{key} {before.get(key)!r}" for key, value in settings.items() if before.get(key) != value]
        if differing:
            raise UserError(f"{out} was prepared with {', '.join(differing)}: use another folder or these settings")
    elif any(out.iterdir()):
        raise UserError(f"{out} holds other files already: use a new or empty folder")
    else:
        write_json(settings, path)


def read_settings(path: Path) -> dict[str, str | int]:
    """How a folder was made, as it notes.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): remove it with its folder, or give another folder"
        ) from None
    if not isinstance(settings, dict):
        raise UserError(f"{path} should hold the settings of a preparation: remove its folder, or give another one")
    return settings


def _targets(files: Sequence[VideoFile]) -> dict[VideoFile, str]:
    """Where each copy goes, relative to the new collection; a hash parts ``a.avi`` from ``a.mov``.

    Names in archives are anybody's: nothing in them leads out of the folder.
    """
    safe = [PurePosixPath(*(part for part in PurePosixPath(file.name).parts if part != "..")) for file in files]
    plain = ["videos" / path.with_suffix("") for path in safe]
    uses = Counter(plain)
    return {
        file: f"{target}.mp4" if uses[target] == 1 else f"{target}-{_digest(file.name)}.mp4"
        for file, target in zip(files, plain)
    }


def _digest(name: str) -> str:
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()


def _read_ledger(out: Path) -> dict[str, CopyOutcome]:
    """The last outcome of each file; lines that an interruption cut short do not count."""
    known = {}
    path = out / LEDGER
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            values = json.loads(line)
            known[values["name"]] = CopyOutcome(**{**values, "stamp": tuple(values["stamp"]), "again": True})
        except (ValueError, KeyError, TypeError):
            continue
    return known


def copies_in(out: Path) -> int:
    """How many copies a folder holds that :func:`prepare_collection` made, whether or not it came to its end."""
    return sum(not outcome.error for outcome in _read_ledger(out).values())


def _still_good(file: VideoFile, target: str, out: Path, known: dict[str, CopyOutcome]) -> bool:
    """Whether the copy of a file is there, complete, and made from what the file is now."""
    outcome = known.get(file.name)
    if outcome is None or outcome.error or outcome.target != target:
        return False
    try:
        return (out / target).stat().st_size == outcome.bytes and file.stamp() == outcome.stamp
    except (OSError, DecodeError):
        return False


def _copy_actions(sidecar: Sidecar, out: Path, target: str) -> str | None:
    """Put the actions of a video beside its copy, which has the same frames; none if they cannot be read."""
    name = PurePosixPath(target).with_suffix(f".actions{PurePosixPath(sidecar.label).suffix}").as_posix()
    try:
        content = sidecar.content()
    except OSError:
        return None
    write_bytes(content, out / name)
    return name


def _write_manifest(out: Path, source: Source, outcomes: dict[VideoFile, CopyOutcome]) -> None:
    """A row for each sample whose file was copied, and what ``dataset.json`` said."""
    rows = []
    for sample in source.samples:
        outcome = outcomes[file_of(source, sample)]
        if not outcome.error:
            label = None if sample.label is None else source.classes[sample.label]
            extra = {key: getattr(sample, key) for key in ("start", "end", "group")}
            extra["text"] = cell_of(sample.text)
            actions = _copy_actions(sample.actions, out, outcome.target) if sample.actions else None
            row = {"path": outcome.target, "label": label, "split": sample.split, **extra, "actions": actions}
            rows.append(row)
    used = [key for key in rows[0] if any(row[key] is not None for row in rows)]
    write_csv([{key: row[key] for key in used} for row in rows], out / "manifest.csv")
    notes: dict[str, object] = {"directional": source.directional}
    if source.classes:
        notes["classes"] = list(source.classes)
    if source.actions is not None:
        notes.update(source.actions.notes)
    write_json(notes, out / NOTES)

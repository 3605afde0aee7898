"""What a sample is to follow, from words and files: frames to continue, classes, actions."""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from filmstrip.data.actions import KEY
from filmstrip.data.config import Clip, DataInfo
from filmstrip.data.kinds.clips import ClipInfo
from filmstrip.errors import UserError
from filmstrip.protocols import Batch, Condition
from filmstrip.runs.config import Run
from filmstrip.video import open_video, read_clips

FPS = 8.0
"""Of samples that continue no file."""
FPS_OF_TEXT = 4.0
"""Of videos that follow a text, as LWM writes them."""
ACTION_FILES = (".npy", ".npz", ".json", ".csv")


def read_condition(
    texts: Sequence[str],
    run: Run,
    info: DataInfo,
    *,
    batch_size: int,
    num_frames: int | None = None,
    context_frames: int = 1,
    given: Sequence[int] = (),
    prompts: Sequence[str] = (),
    folder: Path | None = None,
) -> tuple[Condition, float]:
    """What samples are to follow, and the frames per second that go with it.

    Each text is a file to continue from its first ``context_frames`` frames (or to be completed from those whose
    numbers are ``given``), a class (several take turns), or actions. ``prompts`` are texts that say what is to be
    seen (several take turns), for a run whose ``folder`` holds their tokenizer. ``num_frames`` are by default as many
    as there are actions, or as the run was trained on.

    Raises:
        UserError: a condition is nothing that this run knows, or does not fit another.
    """
    labels: list[int] = []
    video, action, fps = None, None, FPS
    for text in texts:
        if (label := find_class(text, info.classes)) is not None:  # its name may hold a comma
            labels.append(label)
        elif Path(text).suffix.lower() in ACTION_FILES or ("," in text and _are_numbers(text)):
            action = read_actions(text, info)
        elif Path(text).is_file():
            clip = replace(run.data.clip, size=getattr(run.objective, "size", run.data.clip.size))
            video, fps = read_context(text, clip, max(given) + 1 if given else context_frames)
        else:
            raise UserError(_unknown(text, info.classes))
    frames = num_frames or (run.data.clip.num_frames if action is None else len(action))
    if action is not None and len(action) < frames:
        raise UserError(f"{frames} frames need as many actions, and {len(action)} were given")
    known = None
    if given:
        video, known = _given_alone(video, given, frames)
        known = known.expand(batch_size, -1, -1, -1)
    elif video is not None and len(video) >= frames:
        raise UserError(
            f"{len(video)} frames are given already, and {frames} are asked for in all: give more --frames"
        )
    asked = [prompts[i % len(prompts)] for i in range(batch_size)] if prompts else []
    described = _prompts(asked, run, folder, frames) if asked else ()
    fps = FPS_OF_TEXT if prompts and video is None else fps
    return Condition(
        batch_size=batch_size,
        num_frames=frames,
        text=described,
        video=None if video is None else video.expand(batch_size, *video.shape),
        known=known,
        label=torch.tensor([labels[i % len(labels)] for i in range(batch_size)]) if labels else None,
        action=None if action is None else action[:frames].expand(batch_size, *action[:frames].shape),
    ), fps


def _prompts(prompts: Sequence[str], run: Run, folder: Path | None, frames: int) -> tuple[Batch, ...]:
    """Texts that say what is to be seen, as a condition has them."""
    from filmstrip.data.kinds.captioned import Captioned  # other generators do without its rooms
    from filmstrip.data.kinds.vision_text import VisionText
    from filmstrip.data.texts import tokenised
    from filmstrip.text.tokenizers import open_tokenizer

    reads = run.data.reads
    if isinstance(reads, Captioned) and folder is not None:
        ids, lengths = tokenised(open_tokenizer(folder), prompts, reads.max_length, start=reads.start)
        return ({"text": ids, "text_length": lengths},)
    if not isinstance(reads, VisionText) or folder is None:
        raise UserError(
            f"{type(run.objective).__name__} was trained without text that says what is to be seen: leave out "
            "--text, or give a run of language.lwm or of generation.vdt with texts"
        )
    return reads.prompts(open_tokenizer(folder), prompts, frames)


def _given_alone(video: Tensor | None, given: Sequence[int], frames: int) -> tuple[Tensor, Tensor]:
    """A video of all ``frames`` (``T 3 H W``), of whose first ones some are given, and which, ``T 1 1`` bool.

    Raises:
        UserError: there is no video, or no such frame in the result.
    """
    if video is None:
        raise UserError("--given is about the frames of a video: name its file as well (--condition FILE)")
    if max(given) >= frames:
        raise UserError(f"frame {max(given)} is given of samples of {frames}, whose last one is {frames - 1}")
    known = torch.zeros(frames, 1, 1, dtype=torch.bool)
    known[list(given)] = True
    return torch.cat([video, video.new_zeros(frames - len(video), *video.shape[1:])]), known


def class_of(text: str, classes: Sequence[str]) -> int:
    """The class of a name or a number.

    Raises:
        UserError: there is no such class; names the nearest.
    """
    found = find_class(text, classes)
    if found is None:
        close = difflib.get_close_matches(text, classes, n=3, cutoff=0.4) or classes[:20]
        raise UserError(f"this run knows no class {text!r}; the nearest are {', '.join(close)}")
    return found


def find_class(text: str, classes: Sequence[str]) -> int | None:
    """The class of a name or a number; none if it is neither.

    Raises:
        UserError: there is no class of that number.
    """
    if text in classes:
        return classes.index(text)
    if not text.isdecimal():
        return None
    if int(text) >= len(classes):
        known = f"has classes 0 to {len(classes) - 1}" if classes else "was trained without classes"
        raise UserError(f"there is no class {text}: this run {known}")
    return int(text)


def _are_numbers(text: str) -> bool:
    try:
        return bool([float(part) for part in text.split(",")])
    except ValueError:
        return False


def _unknown(text: str, classes: Sequence[str]) -> str:
    close = difflib.get_close_matches(text, classes, n=1)
    if close:
        return f"there is no file and no class {text!r}; did you mean {close[0]!r}?"
    known = f"its classes are {', '.join(classes[:20])}" if classes else "it was trained without classes"
    return f"there is no file {text!r}, and the run knows no such class: {known}"


def read_actions(text: str, info: DataInfo) -> Tensor:
    """Actions from a file, or numbers with commas between them: ``T`` int64, or ``T A`` float32.

    Raises:
        UserError: they cannot be read, or are not of the kind that the run was trained on.
    """
    if not isinstance(info, ClipInfo) or not (info.num_actions or info.action_dim):
        raise UserError(f"this run was trained without actions, and {text} was given")
    try:
        values = np.asarray(_numbers(text))
    except KeyError:
        raise UserError(f"no actions can be read from {text}: it has no array {KEY!r}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"no actions can be read from {text}: {getattr(error, 'strerror', None) or error}") from None
    if info.num_actions:
        values = values.squeeze(1) if values.ndim == 2 and values.shape[1] == 1 else values
        whole = values.dtype.kind in "iuf" and bool((values == np.round(values)).all())
        if values.ndim != 1 or not whole or not len(values) or values.min() < 0 or values.max() >= info.num_actions:
            raise UserError(f"actions are whole numbers 0 to {info.num_actions - 1}, one for each frame: see {text}")
        return torch.from_numpy(values.astype(np.int64))
    if values.ndim == 1 and info.action_dim == 1:
        values = values[:, None]
    if values.ndim != 2 or values.shape[1] != info.action_dim or not np.isfinite(values).all():
        raise UserError(
            f"actions are rows of {info.action_dim} numbers, one for each frame: {text} has {values.shape}"
        )
    return torch.from_numpy(values.astype(np.float32))


def _numbers(text: str) -> np.ndarray | list:
    match Path(text).suffix.lower() if "," not in text else "":
        case ".npy":
            return np.load(text, allow_pickle=False)
        case ".npz":
            with np.load(text, allow_pickle=False) as arrays:
                return arrays[KEY]
        case ".json":
            return json.loads(Path(text).read_text())
        case ".csv":
            with open(text, newline="") as file:
                return [[float(cell) for cell in row] for row in csv.reader(file) if row]
    return [float(part) for part in text.split(",")]


def read_context(path: str, clip: Clip, frames: int) -> tuple[Tensor, float]:
    """The first ``frames`` frames of a file (``T C H W`` uint8), cut as the run cuts clips, and their rate.

    Raises:
        UserError: the file cannot be read, or has fewer frames.
    """
    exact = replace(clip, num_frames=frames, sampling="dense", snap=False, key_starts=False)
    with open_video(path) as decoder:
        needed, info = (frames - 1) * clip.stride + 1, decoder.info
        if round(info.duration * info.fps) < needed:
            raise UserError(
                f"{path} has {round(info.duration * info.fps)} frames; {frames} of them, {clip.stride} apart, need "
                f"{needed}: give fewer --context-frames, or earlier frames"
            )
        cut = read_clips(decoder, **asdict(exact), end=(needed + 0.5) / info.fps)
    return cut[0].video, info.fps / clip.stride

"""Pictures of what a trained objective makes: samples, reconstructions, and masked clips that it fills in.

They are files of the run folder's ``samples/``, which anybody can open; the run's report shows them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from filmstrip.data.augment.levels import to_levels
from filmstrip.data.config import Data
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.data.sources import Source, open_source
from filmstrip.errors import UserError
from filmstrip.files import write_json
from filmstrip.inference import device_of, inference, on_device
from filmstrip.progress import counted
from filmstrip.protocols import (
    Batch,
    Condition,
    Generator,
    Objective,
    Reconstructs,
    as_float,
    find_tokenizer,
)
from filmstrip.runs.config import Run
from filmstrip.runs.contents import SAMPLES
from filmstrip.runs.generators import stream_samples
from filmstrip.runs.loading import load_objective
from filmstrip.video import write_video

log = logging.getLogger(__name__)

COUNT = 4
"""Number of clips or samples of a kind."""
FPS = 8.0
INDEX = "pictures.json"


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Clips of one kind: each a row of videos of one shape (``T C H W`` uint8), side by side."""

    title: str
    note: str
    heads: tuple[str, ...]
    """Heading of each video of a row; none for samples, which stand in rows alone."""
    names: tuple[str, ...]
    """Name of each row."""
    rows: tuple[tuple[Tensor, ...], ...]


@dataclass(frozen=True, kw_only=True)
class KeptPictures:
    """The same, as the files of a run folder."""

    title: str
    note: str
    heads: tuple[str, ...]
    names: tuple[str, ...]
    files: tuple[Path, ...]
    """An animated webp for each row."""


def draw_pictures(objective: Objective, run: Run, source: Source, folder: Path) -> None:
    """Write pictures of what a trained objective makes into its run folder, if it makes any.

    A run is not lost for them: what cannot be drawn is left out, with a message.
    """
    drawn = []
    with counted("drawing what the run makes"):
        for kind in (_reconstructions, _filled_in, _samples):
            try:
                drawn += list(kind(objective, run, source))
            except Exception as error:  # whatever it is, such as memory that is used up: what was trained is whole
                log.warning("the report has no pictures of this kind: %s", error)
    if drawn:
        keep_pictures(drawn, folder)


def draw_run(folder: Path) -> None:
    """The same for what a run folder holds; if that, or its videos, cannot be opened, its pictures stay as they are,
    with a message."""
    try:
        objective, run = load_objective(folder)
        source = open_source(replace(run.data, reads=run.data.reads.as_recorded(folder)))
    except (UserError, OSError) as error:
        log.warning("no pictures are drawn: %s", error)
        return
    draw_pictures(objective, run, source, folder)


def makes_pictures(objective: Objective) -> bool:
    """Whether there is anything that an objective makes and that can be shown."""
    return isinstance(objective, (Generator, Reconstructs)) or find_tokenizer(objective) is not None


def keep_pictures(pictures: Sequence[Pictures], folder: Path) -> None:
    """Write pictures into a run folder's ``samples/``."""
    described = []
    for kind in pictures:
        stem = kind.title.lower().replace(" ", "-")
        files = [f"{stem}-{number}.webp" for number in range(1, len(kind.rows) + 1)]
        for file, videos in zip(files, kind.rows):
            write_video(folder / SAMPLES / file, torch.cat(list(videos), dim=-1), FPS)
        told = {"title": kind.title, "note": kind.note, "heads": kind.heads, "names": kind.names, "files": files}
        described.append(told)
    write_json(described, folder / SAMPLES / INDEX)


def kept_pictures(folder: Path) -> list[KeptPictures]:
    """The pictures that a run folder keeps.

    Raises:
        UserError: their index is damaged, or names files that are not there.
    """
    path = folder / SAMPLES / INDEX
    if not path.exists():
        return []
    try:
        found = [
            KeptPictures(
                title=str(told["title"]),
                note=str(told["note"]),
                heads=tuple(map(str, told["heads"])),
                names=tuple(map(str, told["names"])),
                files=tuple(path.parent / Path(str(name)).name for name in told["files"]),
            )
            for told in json.loads(path.read_bytes())
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error!r}") from None
    if absent := [file for kind in found for file in kind.files if not file.exists()]:
        raise UserError(f"{absent[0]} is not there, which {path} names")
    return found


def _reconstructions(objective: Objective, run: Run, source: Source) -> Iterator[Pictures]:
    """Test clips beside what a tokenizer makes of them; a prior's tokenizer is shown with its own run."""
    if (tokenizer := find_tokenizer(objective)) is None or isinstance(objective, Generator):
        return
    if (batch := _clips(run.data, source)) is None:
        return
    device = device_of(objective)
    with inference(objective):
        rebuilt = to_levels(tokenizer.decode(tokenizer.encode(batch["video"].to(device)))).cpu()
    yield Pictures(
        title="Reconstructions",
        note="Clips that were not trained on, encoded as tokens and decoded again.",
        heads=("original", "from its tokens"),
        names=tuple(batch["name"]),
        rows=tuple(zip(_levels(batch["video"]), rebuilt)),
    )


def _filled_in(objective: Objective, run: Run, source: Source) -> Iterator[Pictures]:
    """Test clips, what is visible of them, and how a masked autoencoder fills in the rest."""
    if not isinstance(objective, Reconstructs) or (batch := _clips(run.data, source)) is None:
        return
    video = batch["video"].to(device_of(objective))
    with inference(objective):
        made = objective.reconstruct(video, torch.arange(len(video), device=video.device))
    rows = zip(_levels(video.cpu()), to_levels(made.masked).cpu(), to_levels(made.rebuilt).cpu())
    yield Pictures(
        title="Masked clips",
        note=(
            "Clips that were not trained on, what the encoder sees of them, and the masked parts as predicted, with "
            "the true brightness and contrast of each patch, which the method does not predict."
        ),
        heads=("original", "visible", "filled in"),
        names=tuple(batch["name"]),
        rows=tuple(rows),
    )


def _samples(objective: Objective, run: Run, source: Source) -> Iterator[Pictures]:
    """Samples of a generator; one that knows classes, follows texts or continues clips is given those."""
    if not isinstance(objective, Generator):
        return
    kinds, clip = getattr(run.objective, "conditions", ()), run.data.clip
    condition = Condition(batch_size=COUNT, num_frames=clip.num_frames)
    names: tuple[str, ...] = tuple(f"sample {number}" for number in range(1, COUNT + 1))
    note = "The first samples, with their own random numbers; nothing was selected."
    if "label" in kinds and source.classes:
        label = torch.arange(COUNT) % len(source.classes)
        condition = replace(condition, label=label)
        names = tuple(source.classes[i] for i in label)
    if "frames" in kinds or "action" in kinds:
        if (batch := _clips(run.data, source)) is None or len(batch["video"]) < COUNT:
            return
        context = getattr(run.objective, "context_frames", max(1, clip.num_frames // 2))
        condition = replace(condition, video=batch["video"][:, :context], action=batch.get("action"))
        names = tuple(batch["name"])
        note = f"Continuations of clips that were not trained on, of which the first {context} frames were given."
    if "text" in kinds:
        if (batch := _clips(run.data, source)) is None:
            return
        turns = [i % len(batch["name"]) for i in range(COUNT)]  # few captions take turns
        condition = replace(condition, text=({name: batch[name][turns] for name in ("text", "text_length")},))
        names = tuple(batch["name"][i] for i in turns)
        note = "Samples that follow the captions of clips that were not trained on."
    samples = torch.cat(list(stream_samples(objective, condition)), dim=1)
    yield Pictures(
        title="Samples", note=note, heads=(), names=names, rows=tuple((each,) for each in _levels(samples))
    )


def _clips(data: Data, source: Source) -> Batch | None:
    """The first clips of the evaluated split that can be read; none where batches have no video."""
    samples = source.split(data.eval_split)[: 4 * COUNT]
    careful = replace(data, num_workers=0)
    batches = EvalLoader(replace(source, samples=tuple(samples)), careful, data.eval_split, batch_size=COUNT)
    batch = next(iter(batches), None)
    if batch is None or "video" not in batch:
        return None
    return on_device(batch, torch.device("cpu"))


def _levels(video: Tensor) -> Tensor:
    """Video as uint8."""
    return video if video.dtype == torch.uint8 else to_levels(as_float(video))

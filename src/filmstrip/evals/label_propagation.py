"""Tracking of objects by label propagation, on films with masks in the layout of DAVIS: J, F and their mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from filmstrip.data.annotations.davis import MaskedFilm, MaskedFilms, is_davis, open_davis
from filmstrip.data.config import Data
from filmstrip.data.masks import Mask, size_of_image, write_mask
from filmstrip.data.sources import Source
from filmstrip.errors import UserError
from filmstrip.evals.distributed import map_items
from filmstrip.evals.propagation import FrameEncoder, Propagation, hard_mask, soft_masks, track
from filmstrip.evals.segmentation import Statistics, boundary_accuracy, region_similarity, statistics
from filmstrip.inference import encoder_of
from filmstrip.runs.evaluation import Evaluation, Subject


class Scores(NamedTuple):
    """J and F of each object of a film, by frame."""

    name: str
    j: Tensor
    """Region similarity, ``K T``."""
    f: Tensor
    """Boundary accuracy, ``K T``."""


@dataclass(frozen=True, kw_only=True)
class LabelPropagation(Propagation, Evaluation):
    """J, F and J&F of objects whose masks in the first frame are propagated through the film.

    As in the public evaluation of DAVIS 2017: the first and the last frame are not evaluated, and all objects count
    alike. Nothing is trained, and no labels but the first masks are used.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    split: str | None = None
    """Split of the films; by default ``val`` where there is one, else the only one."""
    out: Path | None = None
    """Output folder of all masks, a folder of PNG files for each film, as the public evaluation reads them."""

    def own_source(self, data: Data) -> Source:
        """The films at the data's path.

        Raises:
            UserError: there are none in the layout of DAVIS.
        """
        if data.path is None:
            raise UserError("label propagation needs films with masks in the layout of DAVIS: give --data PATH")
        return open_davis(data.path)

    def splits_of(self, data: Data) -> tuple[str, ...]:
        """The split of the films."""
        if self.split is not None or data.path is None or not is_davis(Path(data.path)):
            return (self.split or data.eval_split,)
        splits = open_davis(data.path).splits
        return ("val" if "val" in splits or len(splits) > 1 else splits[0],)

    def lacking(self, source: Source, data: Data) -> str | None:
        """A sentence if the source is not one of films with masks."""
        if not isinstance(source, MaskedFilms):
            return f"LabelPropagation needs films with masks in the layout of DAVIS, and {source.root} holds others"
        return None

    def check(self, subject: Subject) -> None:
        """The encoder takes the films' frames, and the masks fit them and have objects."""
        films = self._films(subject)
        if self.out is None and not any(_is_evaluated(film) for film in films):
            raise UserError(
                f"no film of {subject.source.root} has masks to compare with, beside the first: give --out FOLDER to "
                "write tracked ones"
            )
        for film in films:
            size = film.frame_size()
            for path in film.masks:
                if path is not None and (found := size_of_image(path)) != size:
                    raise UserError(
                        f"{path} is a mask of {found[0]} x {found[1]} pixels, and the frames of {film.name} have "
                        f"{size[0]} x {size[1]}"
                    )
            if not film.mask(0).objects:
                raise UserError(f"{film.masks[0]} has no object: the first mask of a film says what is tracked")
            self._encoder(subject, film)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``J&F/FILM`` of each film, then ``J&F``, ``J``, ``F``, their recall and decay over all objects, and
        their number."""
        films, found = self._films(subject), []
        for scores in map_items(subject, films, lambda film: self._evaluate(subject, film), "tracking"):
            if not scores.j.numel():
                continue
            found.append(scores)
            means = [values.double().mean().item() for values in (scores.j, scores.f)]
            yield f"J&F/{scores.name}", sum(means) / 2
        if not found:
            yield "objects", 0.0
            return
        j = _mean([statistics(values) for scores in found for values in scores.j])
        f = _mean([statistics(values) for scores in found for values in scores.f])
        yield "J&F", (j.mean + f.mean) / 2
        for name, mean in (("J", j), ("F", f)):
            yield name, mean.mean
            yield f"{name}_recall", mean.recall
            yield f"{name}_decay", mean.decay
        yield "objects", float(sum(len(scores.j) for scores in found))

    def _films(self, subject: Subject) -> list[MaskedFilm]:
        (split,) = self.splits_of(subject.data)
        films = [film for film in subject.source.split(split) if isinstance(film, MaskedFilm)]
        return films if self.out is not None else [film for film in films if _is_evaluated(film)] or films

    def _encoder(self, subject: Subject, film: MaskedFilm) -> FrameEncoder:
        clip = subject.data.clip
        return FrameEncoder(encoder_of(subject.objective), clip.size, clip.num_frames, film.frame_size(), self)

    def _evaluate(self, subject: Subject, film: MaskedFilm) -> Scores:
        """Track the objects of a film, and compare them with its masks."""
        encoder, size, first = self._encoder(subject, film), film.frame_size(), film.mask(0)
        objects = first.objects
        soft = soft_masks(torch.from_numpy(first.numbers), objects, encoder.grid)
        j: list[list[float]] = []
        f: list[list[float]] = []
        features = (found for _, found in encoder(film.chunks()))
        for frame, mask in enumerate(track(features, soft, self)):
            numbers = hard_mask(mask, objects, size).cpu() if frame else torch.from_numpy(first.numbers)
            if self.out is not None:
                _write(Mask(numbers.numpy(), first.palette), self.out / film.name, film.frames[frame])
            if film.masks[frame] is None or frame in (0, len(film.frames) - 1):
                continue
            truth = torch.from_numpy(film.mask(frame).numbers)
            pairs = [(numbers == number, truth == number) for number in objects]
            j.append([region_similarity(*pair) for pair in pairs])
            f.append([boundary_accuracy(*pair) for pair in pairs])
        shape = (-1, len(objects))
        return Scores(film.name, torch.tensor(j).view(shape).T, torch.tensor(f).view(shape).T)


def _is_evaluated(film: MaskedFilm) -> bool:
    """Whether a frame between the first and the last one has a mask."""
    return any(path is not None for path in film.masks[1:-1])


def _write(mask: Mask, folder: Path, frame: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_mask(mask, folder / f"{Path(frame).stem}.png")


def _mean(values: list[Statistics]) -> Statistics:
    """The mean of statistics over objects."""
    return Statistics(*(sum(column) / len(values) for column in zip(*values)))

"""DAVIS 2016 and 2017 (Perazzi et al. 2016, Pont-Tuset et al. 2017): films as JPEG frames, with masks of objects.

    JPEGImages/480p/blackswan/00000.jpg ...     Annotations/480p/blackswan/00000.png ...
    ImageSets/2017/val.txt                      (or 2016/val.txt; or 480p/val.txt, whose lines are pairs of files)

Without lists all films that have a mask of the first frame are the split ``val``. A folder without the level of the
resolution (YouTube-VOS, own films) is read too, and not every frame needs a mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from filmstrip.data.masks import Mask, chunks_of, read_mask, size_of_image
from filmstrip.data.sample import Sample, Source
from filmstrip.errors import UserError

IMAGES, MASKS, LISTS = "JPEGImages", "Annotations", "ImageSets"
SPLIT = "val"
"""Name of the split of a collection without lists."""
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True, kw_only=True)
class MaskedFilm(Sample):
    """A film as images, and masks of the objects in some of them: the first one at least."""

    frames: tuple[str, ...]
    """Paths of the images, in order."""
    masks: tuple[str | None, ...]
    """Path of each frame's mask, or None."""

    def chunks(self, length: int = 8) -> Iterator[Tensor]:
        """All frames in order, ``T C H W`` uint8, up to ``length`` at a time.

        Raises:
            UserError: an image cannot be read, or has another size than the first one.
        """
        return chunks_of(self.frames, length)

    def mask(self, frame: int) -> Mask:
        """The mask of a frame that has one.

        Raises:
            UserError: it cannot be read.
        """
        path = self.masks[frame]
        if path is None:
            raise ValueError(f"frame {frame} of {self.name} has no mask")
        return read_mask(path)

    def frame_size(self) -> tuple[int, int]:
        """Height and width of the first frame, from its header.

        Raises:
            UserError: it cannot be read.
        """
        return size_of_image(self.frames[0])


@dataclass(frozen=True, kw_only=True)
class MaskedFilms(Source):
    """A collection of :class:`MaskedFilm`."""


def is_davis(root: Path) -> bool:
    """Whether a folder has the layout of DAVIS."""
    return (root / IMAGES).is_dir() and (root / MASKS).is_dir()


def open_davis(root: Path) -> MaskedFilms:
    """The films of all lists, or of the folder; of 2017 where there are lists of 2016 too.

    Raises:
        UserError: the layout is another, or a film has no frames or no mask of its first frame.
    """
    root = Path(root).expanduser()
    if not is_davis(root):
        raise UserError(
            f"{root} is not laid out as DAVIS: expected {IMAGES}/480p/NAME/*.jpg and {MASKS}/480p/NAME/*.png"
        )
    images, masks = _parent_of_films(root / IMAGES), _parent_of_films(root / MASKS)
    splits = _lists(root) or {SPLIT: [path.name for path in _folders(images) if (masks / path.name).is_dir()]}
    samples = [_film(name, split, images / name, masks / name) for split, names in splits.items() for name in names]
    if not samples:
        raise UserError(f"{root} has no film with both frames and masks")
    return MaskedFilms(root=root, classes=(), samples=tuple(samples))


def _parent_of_films(folder: Path) -> Path:
    """The folder with a folder for each film: below that of resolutions, 480p first, where there is one."""
    resolutions = sorted(_folders(folder), key=lambda path: path.name != "480p")
    return next((path for path in resolutions if _folders(path)), folder)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _lists(root: Path) -> dict[str, list[str]]:
    """The names of the films of each split, from the newest lists; nothing if there are none."""
    for year in ("2017", "2016", "480p", "."):
        found = {}
        for path in sorted((root / LISTS / year).glob("*.txt")):
            words = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            # A line of the oldest lists names a frame and its mask.
            names = [Path(word).parent.name if "/" in word else word for word in words]
            found[path.stem] = list(dict.fromkeys(names))
        if found:
            return found
    return {}


def frames_in(folder: Path) -> tuple[str, ...]:
    """Paths of the images in a folder, in the order of their names."""
    return tuple(str(path) for path in sorted(folder.glob("*")) if path.suffix.lower() in IMAGE_SUFFIXES)


def _film(name: str, split: str, images: Path, masks: Path) -> MaskedFilm:
    frames = frames_in(images)
    if not frames:
        raise UserError(f"{images} has no frames: remove {name} from the list, or add them")
    known = {path.stem: str(path) for path in masks.glob("*.png")}
    if Path(frames[0]).stem not in known:
        raise UserError(f"{masks} has no mask of the first frame, {Path(frames[0]).stem}.png")
    return MaskedFilm(
        path=str(images),
        name=name,
        split=split,
        frames=frames,
        masks=tuple(known.get(Path(path).stem) for path in frames),
    )

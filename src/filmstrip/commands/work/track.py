"""Objects of a first mask, tracked through a film by label propagation, drawn and written as masks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from filmstrip.bounds import PositiveShare, Rate, Weight
from filmstrip.commands.stopping import keeping
from filmstrip.data.masks import Mask, default_palette, read_mask, write_mask
from filmstrip.data.reading.views import opened
from filmstrip.errors import UserError
from filmstrip.evals.propagation import FrameEncoder, Propagation, Size, hard_mask, soft_masks, track
from filmstrip.progress import counted
from filmstrip.runs.encoders import VideoEncoder, load
from filmstrip.video.decoder import FrameFolder
from filmstrip.video.write import Mp4File

SHORT_SIDE = 360
"""Minimum short side of the drawn film, in pixels: smaller films are enlarged by a whole factor."""
FOLDER_FPS = 24.0
"""Frames per second of a folder of images, as in DAVIS."""
COLOURS = ((255, 82, 82), (64, 196, 255), (105, 240, 104), (255, 214, 64), (224, 118, 255), (255, 158, 64))
"""Colours of objects whose mask has no colours of its own."""


@dataclass(frozen=True, kw_only=True)
class TrackRequest(Propagation):
    """What is tracked and written."""

    mask: Path
    """Mask of the first frame, a PNG of the film's size: a palette or grey levels number the objects, or each is
    painted in a colour on black."""
    out: Path | None = None
    """Video to write with the objects drawn in, mp4."""
    masks: Path | None = None
    """Folder to write the mask of every frame to, as PNG files with the palette of the first one."""
    start: Weight = 0.0
    """Time of the frame that the mask is of, in seconds."""
    stop: Rate | None = None
    """Time at which tracking stops, in seconds; by default the film's end."""
    opacity: PositiveShare = 0.45
    """Opacity of an object's colour in the video."""


@dataclass(frozen=True)
class Film:
    """A film that is read in order."""

    size: Size
    fps: float
    num_frames: int | None
    """Number of frames to be read, if known."""
    chunks: Iterator[Tensor]
    """Frames, ``T C H W`` uint8."""


def track_film(source: str, path: Path, request: TrackRequest) -> None:
    """Track the objects of ``request.mask``, and print where each was found.

    Raises:
        UserError: nothing is to be written, the mask does not fit or has no object, the encoder does not take the
            frames, or a file cannot be read or written.
    """
    out, masks = request.out, request.masks
    if out is None and masks is None:
        raise UserError("nothing would be written: give --out tracked.mp4, --masks FOLDER, or both")
    if out is not None and out.suffix.lower() != ".mp4":
        raise UserError(f"tracked films are written while they are read, as mp4, and not {out.name}")
    first = read_mask(request.mask)
    if not first.objects:
        raise UserError(f"{request.mask} has no object: every pixel is background")
    with film_at(path, request.start, request.stop) as film:
        if first.numbers.shape != film.size:
            raise UserError(
                f"{request.mask} is a mask of {first.numbers.shape[0]} x {first.numbers.shape[1]} pixels, and the "
                f"frames of {path} have {film.size[0]} x {film.size[1]}"
            )
        model = load(source)
        shares = _track(model, film, first, request)
    if not shares:
        raise UserError(f"{path} has no frame from {request.start:g} s on")
    for number, found in zip(first.objects, zip(*shares)):
        seen = [share for share in found if share]
        mean = sum(seen) / max(1, len(seen))
        print(f"object {number}: in {len(seen)} of {len(found)} frames, {mean:.1%} of the picture on average")
    for written in (out, masks):
        if written is not None:
            print(written)


def _track(model: VideoEncoder, film: Film, first: Mask, request: TrackRequest) -> list[list[float]]:
    """Track the objects and write what is requested; the share of each frame's pixels that each object has."""
    objects = first.objects
    shares: list[list[float]] = []
    encoder = FrameEncoder(model.encoder, model.clip.size, model.clip.num_frames, film.size, request)
    soft = soft_masks(torch.from_numpy(first.numbers), objects, encoder.grid)
    enlarged = max(1, round(SHORT_SIDE / min(film.size)))
    drawn_size = (film.size[0] * enlarged, film.size[1] * enlarged)
    colours = colours_of(first)
    frames: list[Tensor] = []

    def features() -> Iterator[Tensor]:
        for frame, found in encoder(film.chunks):
            frames[:] = [frame]
            yield found

    with ExitStack() as stack:
        done = stack.enter_context(counted("tracking", film.num_frames))
        stack.enter_context(keeping(lambda: f"{len(shares)} frames are kept"))
        video = None if request.out is None else stack.enter_context(Mp4File(request.out, film.fps))
        if request.masks is not None:
            request.masks.mkdir(parents=True, exist_ok=True)
        for number, mask in enumerate(track(features(), soft, request)):
            found = hard_mask(mask, objects, film.size).cpu() if number else torch.from_numpy(first.numbers)
            if request.masks is not None:
                write_mask(Mask(found.numpy(), first.palette), request.masks / f"{number:05d}.png")
            if video is not None:
                shown = hard_mask(mask, objects, drawn_size).cpu() if number and enlarged > 1 else found
                picture = frames[0].repeat_interleave(enlarged, 1).repeat_interleave(enlarged, 2)
                if shown.shape != drawn_size:
                    shown = shown.repeat_interleave(enlarged, 0).repeat_interleave(enlarged, 1)
                video.add(drawn(picture, shown, colours, request.opacity)[None])
            shares.append([(found == each).float().mean().item() for each in objects])
            done(len(shares))
    return shares


@contextmanager
def film_at(path: Path, start: float = 0.0, stop: float | None = None) -> Iterator[Film]:
    """A video file or a folder of images, open while the body runs.

    Raises:
        UserError: it cannot be read, or is a folder without images.
    """
    source = FrameFolder(str(path), FOLDER_FPS) if path.is_dir() else path
    with opened(source) as decoder:
        info = decoder.info
        chunks = (part.video for part in decoder.frames(start, stop, chunk=8))
        span = max(0.0, min(info.duration, stop or info.duration) - start)
        yield Film((info.height, info.width), info.fps, round(span * info.fps) or None, chunks)


def colours_of(mask: Mask) -> dict[int, tuple[int, int, int]]:
    """The colour of each object: the mask's own, if it is not the palette of DAVIS, which is dark."""
    own = mask.palette != default_palette()
    return {
        number: (
            (mask.palette[3 * number], mask.palette[3 * number + 1], mask.palette[3 * number + 2])
            if own
            else COLOURS[place % len(COLOURS)]
        )
        for place, number in enumerate(mask.objects)
    }


def drawn(frame: Tensor, numbers: Tensor, colours: dict[int, tuple[int, int, int]], opacity: float = 0.45) -> Tensor:
    """A frame (``C H W`` uint8) with objects (``H W`` numbers) tinted, outlined, and named if there are several."""
    height = frame.shape[1]
    width = max(1, round(height / 240))
    palette = torch.zeros(256, 3)
    for number, colour in colours.items():
        palette[number] = torch.tensor(colour, dtype=torch.float32)
    tint = palette[numbers.long()].permute(2, 0, 1)
    picture = frame.float()
    picture = torch.where(numbers > 0, picture * (1 - opacity) + tint * opacity, picture)
    # A dark line around the bright one: an outline is seen on any background.
    for reach, shade in ((2 * width, 0.45), (width, None)):
        pool = numbers[None].float()
        largest = F.max_pool2d(pool, 2 * reach + 1, stride=1, padding=reach)[0]
        smallest = -F.max_pool2d(-pool, 2 * reach + 1, stride=1, padding=reach)[0]
        edge = largest != smallest
        if shade is not None:
            picture = torch.where(edge & (numbers == 0), picture * shade, picture)
        else:
            outline = palette[torch.where(numbers > 0, numbers.long(), largest.long())].permute(2, 0, 1)
            picture = torch.where(edge, outline, picture)
    result = picture.round().clamp(0, 255).to(torch.uint8)
    return result if len(colours) == 1 else _named(result, numbers, colours)


def _named(frame: Tensor, numbers: Tensor, colours: dict[int, tuple[int, int, int]]) -> Tensor:
    """The frame with the number of each object in its middle."""
    image = Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())
    pen = ImageDraw.Draw(image)
    size = max(12, frame.shape[1] // 22)
    font = ImageFont.load_default(size)
    for number, colour in colours.items():
        dark = tuple(channel // 3 for channel in colour)
        rows, columns = (numbers == number).nonzero(as_tuple=True)
        if not len(rows):
            continue
        middle = len(rows) // 2
        x, y = float(columns[rows == rows[middle]].float().median()), float(rows[middle])
        pen.text(
            (x, y),
            str(number),
            font=font,
            anchor="mm",
            fill="white",
            stroke_width=max(2, size // 9),
            stroke_fill=dark,
        )
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)

"""Small looping clips: with a classifier's predictions, or side by side, such as reconstructions."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageSequence
from torch import Tensor
from torch.nn import functional as F

from filmstrip.report.markup import Markup, join, tag
from filmstrip.report.sections import scrolling
from filmstrip.runs.pictures import KeptPictures

MAX_PREDICTIONS = 3
STRIP = 4
"""Number of frames of a clip that does not move, side by side."""
STILL_QUALITY, CLIP_QUALITY = 70, 75
_NARROWEST = 5.5
"""Minimum width of a clip of a wide strip, in rem."""
SEAM = 2
"""Black pixels between the pictures of a strip."""


@dataclass(frozen=True)
class CaptionedClip:
    """A clip (``T C H W`` uint8), its predicted classes, most probable first, and its true class if known."""

    video: Tensor
    name: str
    predictions: Sequence[tuple[str, float]]
    truth: str | None = None


@dataclass(frozen=True)
class ClipGallery:
    """A grid of looping clips with bars of probability; correct and wrong are marked by sign and word."""

    title: str
    clips: Sequence[CaptionedClip]
    fps: float = 8.0
    note: str | None = None
    """A short paragraph above the clips."""

    def html(self) -> Markup:
        """One figure per clip."""
        return join([_note(self.note), tag("div", *(self._figure(clip) for clip in self.clips), class_="clips")])

    def _figure(self, clip: CaptionedClip) -> Markup:
        shown = clip.predictions[:MAX_PREDICTIONS]
        bars = (
            tag(
                "li",
                tag("span", label, class_="name"),
                tag("span", f"{share:.0%}", class_="share"),
                tag("span", class_="bar", style=f"--share:{share:.3f}"),
                class_="true" if label == clip.truth else None,
            )
            for label, share in shown
        )
        described = f"Video {clip.name}" + (f", showing {clip.truth}" if clip.truth else "")
        caption = tag("figcaption", _verdict(clip), tag("ol", *bars), tag("p", clip.name, class_="note"))
        return tag("figure", moving_picture(clip.video, self.fps, described, stills=STRIP), caption)


@dataclass(frozen=True)
class Strip:
    """Clips of one shape (``T C H W`` uint8) played synchronously, and their name."""

    videos: Sequence[Tensor]
    name: str


@dataclass(frozen=True)
class Strips:
    """Clips side by side, such as originals and reconstructions; one picture per strip, so synchronous."""

    title: str
    strips: Sequence[Strip]
    heads: Sequence[str] = ()
    """Heading of each clip of a strip."""
    fps: float = 8.0
    note: str | None = None
    """A short paragraph above the strips."""
    wide: bool = False
    """Whether each strip takes the page's width, for many clips; on a narrow page it scrolls."""

    def html(self) -> Markup:
        """One figure per strip."""
        heads = heads_of(self.heads) if self.heads else None
        described = f": {', '.join(self.heads)}" if self.heads else ""
        figures = (
            tag(
                "figure",
                self._placed(
                    join(
                        [
                            heads,
                            moving_picture(side_by_side(strip.videos), self.fps, f"Video {strip.name}{described}"),
                        ]
                    ),
                    strip,
                ),
                tag("figcaption", strip.name, class_="note"),
            )
            for strip in self.strips
        )
        return join([_note(self.note), tag("div", *figures, class_="strips wide" if self.wide else "strips")])

    def _placed(self, content: Markup, strip: Strip) -> Markup:
        """A strip as it is, or so that its clips do not become too narrow."""
        if not self.wide:
            return content
        return scrolling(tag("div", content, style=f"min-width: {_NARROWEST * len(strip.videos)}rem"), strip.name)


@dataclass(frozen=True)
class KeptStrips:
    """Strips that are files of a run folder, an animated webp for each."""

    kept: KeptPictures

    @property
    def title(self) -> str:
        """Their kind."""
        return self.kept.title

    def html(self) -> Markup:
        """As :class:`Strips`."""
        kept = self.kept
        strips = [Strip([frames_of(file)], name) for file, name in zip(kept.files, kept.names, strict=True)]
        return Strips(kept.title, strips, kept.heads, note=kept.note).html()


def frames_of(path: Path) -> Tensor:
    """The frames of an animated picture: ``T C H W`` uint8."""
    with Image.open(path) as picture:
        frames = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)]
    return rearrange(torch.from_numpy(np.stack(frames)), "t h w c -> t c h w")


def heads_of(names: Sequence[str]) -> Markup:
    """Headings above the pictures of :func:`side_by_side`."""
    return tag("p", *(tag("span", name) for name in names), class_="heads")


def side_by_side(videos: Sequence[Tensor]) -> Tensor:
    """Videos of one shape (``T C H W``) as a single wide one, with black seams."""
    padded = [F.pad(video, (0, SEAM if i < len(videos) - 1 else 0)) for i, video in enumerate(videos)]
    return torch.cat(padded, dim=-1)


def moving_picture(video: Tensor, fps: float, description: str, *, stills: int = 1) -> Markup:
    """A looping clip (``T C H W`` uint8); in print, and with reduced motion preferred, so many of its frames, evenly
    spaced, as one picture."""
    places = [(2 * i + 1) * len(video) // (2 * stills) for i in range(stills)]
    still = side_by_side([video[place : place + 1] for place in places])
    height, width = video.shape[-2:]
    return tag(
        "picture",
        tag(
            "source",
            srcset=_webp(_images(still), fps, STILL_QUALITY),
            media="print, (prefers-reduced-motion: reduce)",
            width=still.shape[-1],
            height=height,
        ),
        tag("img", src=_webp(_images(video), fps, CLIP_QUALITY), alt=description, width=width, height=height),
    )


def _images(video: Tensor) -> list[Image.Image]:
    return [Image.fromarray(frame) for frame in rearrange(video, "t c h w -> t h w c").contiguous().numpy()]


def _webp(frames: Sequence[Image.Image], fps: float, quality: int) -> str:
    """Frames as an animated WebP that loops for ever, in a data URI."""
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        format="WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=round(1000 / fps),
        loop=0,
        quality=quality,
        method=4,
    )
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _note(text: str | None) -> Markup | None:
    return tag("p", text, class_="note above") if text else None


def _verdict(clip: CaptionedClip) -> Markup | None:
    """Whether the top prediction is correct, by sign, word and colour."""
    if clip.truth is None or not clip.predictions:
        return None
    if clip.predictions[0][0] == clip.truth:
        return tag("p", "✓ correct: ", tag("b", clip.truth), class_="verdict right")
    return tag("p", "✗ wrong: it is ", tag("b", clip.truth), class_="verdict wrong")

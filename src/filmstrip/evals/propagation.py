"""Label propagation: the masks of a film's first frame are carried on by the similarity of an encoder's features.

Jabri et al. 2020, with the settings of DINO's public evaluation (Caron et al. 2021): each token of a frame receives
the mean label of the most similar tokens near its place, in the first frame and in the last ones. Nothing is trained.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from filmstrip.bounds import AnyWhole, Count, CountOrZero, Rate, check_numbers
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference
from filmstrip.protocols import EncoderModule, Features, Grid, as_float

BATCH = 8
"""Number of frames that are encoded at once, where each is encoded alone."""
TILE = 8
"""Side of the squares of tokens that are compared at once with what lies around them."""
Size = tuple[int, int]
"""Height and width, of frames in pixels or of grids in tokens."""


@dataclass(frozen=True, kw_only=True)
class Propagation:
    """Settings of label propagation; the defaults are those of DINO's public evaluation."""

    layer: AnyWhole | None = None
    """Layer whose tokens are compared: 0 for the first block's output, -1 for the last one's; by default the
    encoder's output."""
    size: Count | None = None
    """Height and width of encoded frames in pixels; by default those of the encoder's clips."""
    keep_aspect: bool = False
    """Whether ``size`` is the short side, and the long side keeps the aspect ratio, rounded to whole tokens."""
    context: Literal["frame", "clip"] = "frame"
    """Input of the encoder: each frame alone, where it takes single frames, or successive clips of as many frames as
    it was trained on."""
    last_frames: CountOrZero = 7
    """Number of preceding frames that labels come from, beside the first frame."""
    top_k: Count = 5
    """Number of most similar tokens whose labels are averaged; tokens tied for the last place all count."""
    radius: CountOrZero = 12
    """Maximum distance of these tokens along height and width, in tokens."""
    temperature: Rate = 0.1
    """Temperature of the softmax over cosine similarities."""

    def __post_init__(self) -> None:
        check_numbers(self)


class FrameEncoder:
    """Features of each frame of a film, from an encoder of images or of clips.

    Args:
        encoder: any encoder.
        own_size: height and width of the clips that the encoder was made for.
        num_frames: their number of frames.
        film: height and width of the film's frames.
        settings: layer, size and context of the features.

    Raises:
        UserError: the encoder does not take frames of this size, has no such layer, or its grid has one token.
    """

    def __init__(
        self, encoder: EncoderModule, own_size: int, num_frames: int, film: Size, settings: Propagation
    ) -> None:
        self._encoder, self._layer = encoder, settings.layer
        patch = getattr(encoder, "patch_size", (1, 1, 1))
        self.size = _scaled(film, settings.size or own_size, settings.keep_aspect, patch[1:])
        tried = [(num_frames, 1)]
        if settings.context == "frame":
            tried = [(1, 1), (1, patch[0]), *tried]
        self.num_frames, self._repeats, self.grid = self._try_out(list(dict.fromkeys(tried)))

    def __call__(self, chunks: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Each frame (``C H W`` uint8) with its unit features (``N D`` float32, on the encoder's device).

        ``chunks`` are the frames of a film, ``T C H W`` uint8; no more than a clip, or some frames, are held. The
        last clip of a film overlaps the one before, and a film shorter than a clip repeats its last frame.
        """
        length = BATCH if self.num_frames == 1 else self.num_frames
        for clip, first in _clips(chunks, length, overlap=self.num_frames > 1):
            yield from zip(clip[first:], self._features(clip)[first:])

    def _features(self, clip: Tensor) -> Tensor:
        """Unit features of ``T C H W`` frames, ``T N D``."""
        with inference(self._encoder):
            video = scaled_to(clip.to(device_of(self._encoder)), self.size)
            if self.num_frames > 1:
                missing = self.num_frames - len(video)
                video = torch.cat([video, video[-1:].expand(missing, -1, -1, -1)])[None]
            else:
                video = video[:, None].expand(-1, self._repeats, -1, -1, -1)
            tokens, grid = self._tokens(self._encoder(video, layers=self._layer is not None))
            tokens = rearrange(tokens.float(), "b (t n) d -> b t n d", t=grid.t)
            if self.num_frames > 1:
                # A step of the grid stands for several frames, each of which has its features.
                steps = torch.arange(len(clip), device=tokens.device) * grid.t // self.num_frames
                return F.normalize(tokens[0, steps], dim=-1)
            return F.normalize(tokens.mean(dim=1), dim=-1)

    def _tokens(self, features: Features) -> tuple[Tensor, Grid]:
        """The tokens of the layer, and their grid."""
        if self._layer is None:
            return features.tokens, features.grid
        if not -len(features.layers) <= self._layer < len(features.layers):
            name = type(self._encoder).__name__
            raise UserError(f"{name} has {len(features.layers)} layers: layer {self._layer} is not one of them")
        tokens = features.layers[self._layer]
        return tokens, _grid_of_layer(tokens.shape[1], features.grid, self._layer)

    def _try_out(self, tried: list[tuple[int, int]]) -> tuple[int, int, Size]:
        """The first pair of ``tried`` (frames of a clip, repeats of each) that the encoder takes, and its grid."""
        name, failures = type(self._encoder).__name__, []
        for length, repeats in tried:
            blank = torch.zeros(1, length * repeats, 3, *self.size, device=device_of(self._encoder))
            try:
                with inference(self._encoder):
                    _, grid = self._tokens(self._encoder(blank, layers=self._layer is not None))
            except torch.OutOfMemoryError:
                raise
            except (ValueError, RuntimeError) as error:
                failures.append(str(error).splitlines()[0])
                continue
            if grid.h * grid.w < 2:
                raise UserError(f"{name} makes one token of a frame: label propagation needs a grid of several")
            return length, repeats, (grid.h, grid.w)
        raise UserError(
            f"{name} does not take frames of {self.size[0]} x {self.size[1]} pixels ({failures[-1]}): set another "
            "size, or none for that of its own clips"
        )


def track(features: Iterable[Tensor], first: Tensor, settings: Propagation) -> Iterator[Tensor]:
    """Soft masks of every frame of a film, ``C h w`` float32, the first frame's first.

    Args:
        features: unit features of each frame, ``N D``.
        first: shares of the background and of each object in the tokens of the first frame, ``C h w``.
        settings: where labels come from.
    """
    # One block holds the features: those of a new frame replace the oldest, and nothing is put together anew.
    order: deque[int] = deque()
    kept, masks = torch.empty(0), torch.empty(0)
    for found in features:
        if not len(kept):
            kept = found.new_zeros(settings.last_frames + 1, *found.shape)
            masks = found.new_zeros(settings.last_frames + 1, *first.shape)
            kept[0], masks[0] = found, first
            yield masks[0].clone()
            continue
        known = 1 + len(order)
        mask = propagate(found, kept[:known], masks[:known], settings)
        if settings.last_frames:
            place = known if known <= settings.last_frames else order.popleft()
            order.append(place)
            kept[place], masks[place] = found, mask
        yield mask


def propagate(features: Tensor, known: Tensor, masks: Tensor, settings: Propagation) -> Tensor:
    """Soft masks of one frame, ``C h w``, from those of others, ``M C h w``.

    Squares of tokens are compared with all tokens within the radius around them, in place of each token with each
    other one: of ``N`` tokens with ``(2 radius + 1) ** 2`` around them, not with ``N``.

    Args:
        features: unit features of the frame, ``N D``.
        known: those of the other frames, ``M N D``.
        masks: soft masks of the other frames.
        settings: radius, number of neighbours and temperature.
    """
    count, _, height, width = masks.shape
    query = rearrange(features, "(h w) d -> h w d", h=height)
    keys = rearrange(known, "m (h w) d -> m h w d", h=height)
    labels = rearrange(masks, "m c h w -> m h w c")
    result = torch.empty_like(labels[0])
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            bottom, right = min(top + TILE, height), min(left + TILE, width)
            y, x = _around(top, bottom, height, settings.radius), _around(left, right, width, settings.radius)
            similarity = query[top:bottom, left:right].flatten(0, 1) @ keys[:, y, x].flatten(0, 2).T
            rows = _far(range(top, bottom), y, settings.radius, features.device)
            columns = _far(range(left, right), x, settings.radius, features.device)
            far = rows[:, None, :, None] | columns[None, :, None, :]
            far = rearrange(far, "a b y x -> (a b) 1 (y x)").expand(-1, count, -1).flatten(1)
            similarity = similarity.masked_fill(far, -torch.inf)
            best = similarity.topk(min(settings.top_k, similarity.shape[1]), dim=1).values
            weight = ((similarity - best[:, :1]) / settings.temperature).exp()
            weight = weight.masked_fill(similarity < best[:, -1:], 0.0)
            found = weight @ labels[:, y, x].flatten(0, 2) / weight.sum(dim=1, keepdim=True)
            result[top:bottom, left:right] = found.view(bottom - top, right - left, -1)
    return rearrange(result, "h w c -> c h w")


def soft_masks(numbers: Tensor, objects: tuple[int, ...], grid: Size) -> Tensor:
    """The share of the background and of each object in every token: ``H W`` numbers to ``C h w`` float32."""
    first = torch.stack([numbers == number for number in objects]).float()
    shares = F.adaptive_avg_pool2d(first, grid)
    return torch.cat([1 - shares.sum(dim=0, keepdim=True), shares])


def hard_mask(soft: Tensor, objects: tuple[int, ...], size: Size) -> Tensor:
    """The number of the object in each pixel, ``H W`` uint8, from soft masks ``C h w``.

    They are enlarged bilinearly, each is scaled from its minimum to its maximum, and the largest counts.
    """
    shares = F.interpolate(soft[None].float(), size=size, mode="bilinear", align_corners=False)[0]
    low, high = shares.amin(dim=(1, 2), keepdim=True), shares.amax(dim=(1, 2), keepdim=True)
    # A mask that is the same everywhere has no scale: an object that is gone stays gone.
    shares = (shares - low) / torch.where(high > low, high - low, 1.0)
    best, numbers = shares[0], torch.zeros(size, dtype=torch.uint8, device=soft.device)
    # One by one: argmax over the first of three dimensions takes ten times as long.
    for share, number in zip(shares[1:], objects):
        numbers = torch.where(share > best, number, numbers)
        best = torch.maximum(best, share)
    return numbers


def scaled_to(frames: Tensor, size: Size) -> Tensor:
    """``T C H W`` uint8 frames at another size, without aliasing, in 0..1."""
    if tuple(frames.shape[-2:]) == size:
        return as_float(frames)
    return F.interpolate(as_float(frames), size=size, mode="bilinear", antialias=True).clamp(0, 1)


def _scaled(film: Size, size: int, keep_aspect: bool, patch: Size) -> Size:
    """Height and width at which frames are encoded."""
    if not keep_aspect:
        return size, size
    scale = size / min(film)
    return (
        max(1, round(film[0] * scale / patch[0])) * patch[0],
        max(1, round(film[1] * scale / patch[1])) * patch[1],
    )


def _clips(chunks: Iterable[Tensor], length: int, *, overlap: bool) -> Iterator[tuple[Tensor, int]]:
    """Clips of ``length`` frames, and the number of frames at their start that an earlier clip had.

    The last one may be shorter; with ``overlap`` it begins earlier instead, if there are as many frames.
    """
    held: deque[Tensor] = deque(maxlen=length)
    new = 0
    for chunk in chunks:
        for frame in chunk:
            held.append(frame)
            new += 1
            if new == length:
                yield torch.stack(list(held)), 0
                new = 0
    if new:
        taken = len(held) if overlap else new
        yield torch.stack(list(held)[-taken:]), taken - new


def _grid_of_layer(count: int, grid: Grid, layer: int) -> Grid:
    """The grid of a layer with ``count`` tokens, of an encoder whose output has ``grid``."""
    if count == grid.t * grid.h * grid.w:
        return grid
    for t in (grid.t * 2**k for k in range(6)):
        scale = math.sqrt(count / (t * grid.h * grid.w))
        h, w = round(grid.h * scale), round(grid.w * scale)
        if t * h * w == count and h * grid.w == w * grid.h:
            return Grid(t, h, w)
    raise UserError(
        f"layer {layer} has {count} tokens, which are no multiple of the output's grid {tuple(grid)}: use another "
        "layer or size"
    )


def _around(start: int, stop: int, length: int, radius: int) -> slice:
    """The positions of an axis within a radius of some others."""
    return slice(max(0, start - radius), min(length, stop + radius))


def _far(queries: range, keys: slice, radius: int, device: torch.device) -> Tensor:
    """Whether positions of an axis are farther apart than a radius, ``queries x keys``."""
    here = torch.arange(queries.start, queries.stop, device=device)
    return (here[:, None] - torch.arange(keys.start, keys.stop, device=device)).abs() > radius

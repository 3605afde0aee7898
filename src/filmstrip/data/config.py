"""Configuration of a run's data: source, sampling of clips, augmentation and batching."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, Self

from filmstrip.bounds import (
    Ascending,
    Bounds,
    Count,
    CountOrZero,
    NotEmpty,
    PositiveShare,
    Rate,
    Seed,
    Share,
    Weight,
)
from filmstrip.data.kinds.kind import Kind
from filmstrip.protocols import Labels
from filmstrip.settings import FREE
from filmstrip.video.geometry import fitting_size, native_size


@dataclass(frozen=True, kw_only=True)
class NativeSize:
    """Frames at their own shape: whole ones, scaled to whole patches, instead of square crops of one size.

    Clips of several sizes share a batch: they lie at the top left of a video that is padded, and batches have
    ``frame_size`` and ``is_patch``.
    """

    patch: Count = 16
    """Side of a patch, in pixels."""

    def size_of(self, num_frames: int, height: int, width: int) -> tuple[int, int]:
        """Height and width at which frames of a clip of so many enter, pixels."""
        raise TypeError(f"{type(self).__name__} does not define size_of(num_frames, height, width)")

    def room(self, num_frames: int) -> int:
        """Number of patches for which a batch has room in each frame."""
        raise TypeError(f"{type(self).__name__} does not define room(num_frames)")

    def of_batch(self, seed: int) -> Self:
        """The sizes of one batch of training, drawn from a seed; by default these."""
        return self

    def evaluated(self) -> Self:
        """The sizes in evaluation; by default these."""
        return self

    def of_network(
        self, *, patch: int, merged: int, image_pixels: tuple[int, int], video_pixels: tuple[int, int]
    ) -> Self:
        """The sizes of a network's patches and ranges of pixels (:class:`PixelRange`); by default these."""
        return self


@dataclass(frozen=True, kw_only=True)
class PatchNumber(NativeSize):
    """Frames as large as a number of patches allows (NaFlex, Tschannen et al. 2025)."""

    max_patches: Annotated[tuple[Count, ...], NotEmpty] = (256,)
    """Maximum numbers of patches of a frame. Training draws one of them for each batch."""
    eval_patches: Count = 256
    """Maximum number of patches of a frame in evaluation."""

    def size_of(self, num_frames: int, height: int, width: int) -> tuple[int, int]:
        """See :func:`~filmstrip.video.geometry.fitting_size`, with the largest of the numbers."""
        return fitting_size(height, width, patch=self.patch, max_patches=max(self.max_patches))

    def room(self, num_frames: int) -> int:
        """The largest of the numbers."""
        return max(self.max_patches)

    def of_batch(self, seed: int) -> Self:
        """One of the numbers."""
        return replace(self, max_patches=(self.max_patches[seed % len(self.max_patches)],))

    def evaluated(self) -> Self:
        """The number of evaluation."""
        return replace(self, max_patches=(self.eval_patches,))


@dataclass(frozen=True, kw_only=True)
class PixelRange(NativeSize):
    """Frames near their own size, within a range of pixels (Qwen2-VL, Wang et al. 2024)."""

    patch: Count = 14
    merged: Count = 2
    """Rows and columns of patches that become one token later: sides are multiples of as many patches."""
    image_pixels: Annotated[tuple[Count, Count], Ascending] = (56 * 56, 28 * 28 * 1280)
    """Minimum and maximum number of pixels of an image."""
    video_pixels: Annotated[tuple[Count, Count], Ascending] = (28 * 28 * 128, 28 * 28 * 768)
    """Minimum and maximum number of pixels of a video's frame."""

    def size_of(self, num_frames: int, height: int, width: int) -> tuple[int, int]:
        """See :func:`~filmstrip.video.geometry.native_size`."""
        low, high = self.image_pixels if num_frames == 1 else self.video_pixels
        multiple = self.patch * self.merged
        return native_size(height, width, multiple=multiple, min_pixels=low, max_pixels=high)

    def room(self, num_frames: int) -> int:
        """The number of patches of the maximum of pixels."""
        high = self.image_pixels[1] if num_frames == 1 else self.video_pixels[1]
        return high // (self.patch * self.merged) ** 2 * self.merged**2

    def of_network(
        self, *, patch: int, merged: int, image_pixels: tuple[int, int], video_pixels: tuple[int, int]
    ) -> Self:
        """See :meth:`NativeSize.of_network`."""
        return replace(self, patch=patch, merged=merged, image_pixels=image_pixels, video_pixels=video_pixels)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Temporal and spatial sampling of a clip from a video."""

    num_frames: Count = 16
    """Number of frames in a clip."""
    stride: Count = 4
    """Number of video frames from one frame of the clip to the next (``dense`` sampling only)."""
    sampling: Literal["dense", "uniform", "segments"] = "dense"
    """Temporal sampling. ``dense``: frames ``stride`` apart; ``uniform``: frames spread evenly over the video;
    ``segments``: one frame from each of ``num_frames`` equal segments, at random in training (TSN)."""
    size: Count = 224
    """Height and width of the clip, in pixels."""
    native: NativeSize | None = None
    """Sizes of whole frames at their own shape, in place of square crops of ``size``; none for squares."""
    crop: Literal["short_side", "random_resized"] = "short_side"
    """Training crop. ``short_side``: scale the short side to a random length and crop a square; ``random_resized``:
    crop a rectangle of random size and shape (``area``, ``aspect``) and resize it."""
    short_side: Annotated[tuple[Count, Count], Ascending] = (256, 320)
    """Range of the short side in training, in pixels; evaluation has ``eval_short_side``."""
    eval_short_side: Count | None = None
    """Short side that frames are scaled to in evaluation before ``size`` is cut out, pixels; by default ``size``."""
    area: Annotated[tuple[PositiveShare, PositiveShare], Ascending] = (0.5, 1.0)
    """Range of a random resized crop's area, as a fraction of the frame."""
    aspect: Annotated[tuple[Rate, Rate], Ascending] = (3 / 4, 4 / 3)
    """Range of a random resized crop's aspect ratio, width over height."""
    snap: bool = False
    """Whether training may use a neighbouring frame where that saves decoding."""
    key_starts: bool = False
    """Whether dense training clips begin at a key frame: faster, and varied enough if key frames are close."""


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random augmentation of batches on the device, drawn from each sample's own seed."""

    mirror: Share = 0.5
    """Probability of a horizontal flip; treated as zero if the dataset's classes are directional."""
    brightness: Weight = 0.0
    """Maximum relative change of brightness."""
    contrast: Weight = 0.0
    """Maximum relative change of contrast."""
    saturation: Weight = 0.0
    """Maximum relative change of saturation."""
    hue: Share = 0.0
    """Maximum change of hue, as a fraction of the full circle."""
    rand_ops: CountOrZero = 0
    """Number of RandAugment operations applied to each clip."""
    rand_magnitude: Annotated[float, Bounds(min=0, max=10)] = 9.0
    """Magnitude of RandAugment operations, 0 to 10."""
    mixup: Weight = 0.0
    """Parameter of mixup's beta distribution; zero for no mixup."""
    cutmix: Weight = 0.0
    """Parameter of cutmix's beta distribution; zero for no cutmix. With both, each batch uses one of them."""
    erase: Share = 0.0
    """Probability of random erasing: one box through all frames."""


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """A synthetic dataset, which is generated as encoded video files when it is first used."""

    def generate(self, out: Path | None = None) -> Path:
        """The folder that holds it, ``out`` or one in the cache, after generating it if it does not exist yet."""
        raise TypeError(f"{type(self).__name__} does not define generate(out)")


def _clips() -> Kind:
    # Imported here because the kinds' files import this one.
    from filmstrip.data.kinds.clips import Clips

    return Clips()


@dataclass(frozen=True, kw_only=True)
class Data:
    """Source of the data, and their sampling, augmentation, batching and loading."""

    path: Path | None = None
    """Path of the data: a folder ``class/*.mp4``, a manifest (CSV or Parquet), WebDataset shards
    (``name-{000..012}.tar``), or a folder that ``filmstrip encode`` wrote."""
    mixture: tuple[Path, ...] = ()
    """Paths of several sources, in place of ``path``: training reads them in the ratio of ``weights``, evaluation one
    after another. On the command line ``--data PATH PATH ...``."""
    weights: tuple[Rate, ...] = ()
    """Weights of the sources of the ``mixture``, in its order, such as 20 10 70; read only where there is one."""
    synthetic: Synthetic | None = None
    """Synthetic dataset that is generated and read if there is no ``path``."""
    reads: Kind = field(default_factory=_clips)
    """Kind of sample that is read, one of ``filmstrip.data.kinds``, with its settings."""
    train_split: str = "train"
    """Name of the training split."""
    eval_split: str = field(default="test", metadata=FREE)
    """Name of the split for evaluation."""
    videos_per_class: Count | None = None
    """Number of training videos of each class that are read, to learn from few labels; by default all. A class that
    has fewer keeps all of them."""
    subset_seed: Seed = 0
    """Seed of the choice of these videos. With the same seed, fewer videos are some of those that more would be."""
    balance: Share = 0.0
    """Balance of the classes in training: 0 reads every video equally often, 1 every class; between them a class of
    ``n`` videos is read in proportion to ``n`` to the power of one minus the balance. A pass stays as long."""
    clip: Clip = field(default_factory=Clip)
    """Frames and pixels of a clip."""
    blanked: tuple[tuple[Share, Share, Share, Share], ...] = ()
    """Rectangles of all frames that are blanked, such as a scoreboard: left, top, right and bottom edge, as fractions
    of width and height. On the command line one after another: 0 0 1 0.2."""
    augment: Augment = field(default_factory=Augment)
    """Random augmentation in training."""
    batch_size: Count = 8
    """Number of clips in one optimiser step, over all processes and accumulation steps."""
    clips_per_video: Count = 1
    """Number of clips sampled from each decoded video (repeated augmentation)."""
    num_workers: CountOrZero = field(default=2, metadata=FREE)
    """Number of decoding workers for each training process."""
    max_unreadable: Share = field(default=0.05, metadata=FREE)
    """Maximum fraction of unreadable samples; training stops above it."""
    backend: Literal["auto", "pyav", "torchcodec"] = "auto"
    """Video decoder; ``auto`` chooses the faster one that is installed."""

    def at(self, path: Path) -> Data:
        """The same settings for the data at one other path."""
        return replace(self, path=path, mixture=())


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """Properties of the data that an objective needs before it is built; kinds of samples add their own."""

    classes: tuple[str, ...]
    """Names of the classes, in the order of their numbers."""
    num_train: int
    """Number of training videos."""
    directional: bool
    """Whether mirroring changes the meaning of a clip."""
    labels: Labels = "class"
    """Kind of label; of numbers, ``classes`` are their names."""
    class_counts: tuple[int, ...] = ()
    """Number of training videos of each class; empty without classes."""
    number_means: tuple[float, ...] = ()
    """Mean of each number over the training videos; empty without numbers."""
    number_stds: tuple[float, ...] = ()
    """Standard deviation of each number over the training videos, 1 for one that does not vary."""

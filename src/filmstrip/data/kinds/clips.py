"""Clips sampled from videos, with labels and actions if the videos have them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F

from filmstrip.bounds import Bounds, Rate
from filmstrip.data.actions import (
    ActionSpace,
    Changes,
    check_changes,
    check_clip,
    clip_actions,
    clip_changes,
    clip_states,
)
from filmstrip.data.config import Clip, Data, DataInfo
from filmstrip.data.kinds.kind import Kind, Row
from filmstrip.data.kinds.specification import COMMON, Form, Key, Specification, of
from filmstrip.errors import UserError
from filmstrip.protocols import Batch, Labels
from filmstrip.video.clips import read_clips, read_parts
from filmstrip.video.decode import open_video
from filmstrip.video.decoder import DecodeError, Decoder, Frames, VideoInfo

if TYPE_CHECKING:
    from filmstrip.data.sample import Sample, Source

_TRIED = 16
"""Number of videos that are tried for the size of a state."""
VIDEO = of("B T C H W", torch.uint8, "frames")
LABEL = Key(
    "class; `B K` probabilities after mixing, 1 or 0 for each of several classes, or numbers",
    (Form("B", torch.int64), Form("B K", torch.float32)),
    when="labelled videos",
)
NATIVE = {
    "frame_size": of("B 2", torch.int64, "height and width of the frames, in pixels", when="`data.clip.native`"),
    "is_patch": of(
        "B N",
        torch.bool,
        "whether each of `N` tokens of a frame is one of its patches, which come first",
        padding=0,
        when="`data.clip.native`",
    ),
}
"""Keys of clips whose frames have their own sizes; a kind that reads them pads ``video``, too."""
IMAGES = of("B", torch.bool, "whether the frames are unrelated images", when="`data.reads.images sequence`")
ACTION = Key(
    "entry `t` is the action since frame `t - 1`: discrete, or `A` numbers",
    (Form("B T A", torch.float32), Form("B T", torch.int64)),
    when="videos with actions",
    unmixed="actions",
)
STATE = of("B T S", torch.float32, "state at each frame, `S` numbers", when="states are read", unmixed="states")
EXPERT = of(
    "B T A",
    torch.float32,
    "action that an expert takes after each frame",
    when="an expert's actions are read",
    unmixed="an expert's actions",
)


@dataclass(frozen=True, kw_only=True)
class Clips(Kind):
    """Clips of videos."""

    mixes: ClassVar[bool] = True
    specification: ClassVar[Specification] = Specification(
        {
            "video": VIDEO,
            "label": LABEL,
            "action": ACTION,
            "state": STATE,
            "expert": EXPERT,
            "images": IMAGES,
            **COMMON,
        }
    )

    layout: Literal["auto", "folder", "ucf101", "kinetics", "ssv2", "teco", "cater", "droid", "lerobot"] = "auto"
    """Layout of a folder; ``auto`` detects it. ``folder`` is a folder of classes, whatever else it contains."""
    labels: Labels = "class"
    """Kind of label in a manifest: one ``class``, ``several`` classes (``a;b`` or a JSON list; ``[]`` for none
    of them), or a ``number``, or several as ``1.5;2``."""
    fold: Annotated[int, Bounds(min=1, max=3)] = 1
    """Fold of UCF-101, its division into training and test, 1 to 3."""
    actions: bool = True
    """Whether to read the actions of videos that have them."""
    states: str = ""
    """Name of an array beside the actions (``NAME.actions.npz``), a row for each frame, to read as states; empty for
    none."""
    changes: Changes | None = None
    """Computation of actions as changes of the ``states`` from frame to frame, in place of those that were recorded:
    ``plain`` differences, or those of a gripper's ``pose`` (place, angles, and more), as V-JEPA 2-AC's; by default
    recorded ones are read."""
    camera: str = ""
    """Name of the camera whose videos are read, of robots that have several (DROID: left, right, wrist; LeRobot: as
    observation.images.NAME); by default the first one."""
    expert: str = ""
    """Name of an array beside the actions with what an expert would do at each frame, a row for each, where others
    may have acted (DAgger); empty for none."""
    images: Literal["still", "sequence"] = "still"
    """Clips of images. ``still``: one image, unmoving; ``sequence``: in training, as many unrelated images of one
    source as a clip has frames, one after another (Toto)."""
    fps: Rate | None = None
    """Frames per second of films that are folders of images. If it is given, every folder of images is a film; by
    default folders of numbered images within those of classes are films of 25 frames per second."""

    def open(self, data: Data) -> Source:
        """The videos in ``data.path``, or of a synthetic set, which is generated first unless it already exists.

        If the path holds encoded videos, their clips are :class:`~filmstrip.data.kinds.encoded.Encoded`.

        Raises:
            UserError: there is nothing to read, or its layout is unknown; the message says what was expected.
        """
        # Imported here because layouts construct samples of this kind.
        from filmstrip.data.sources import open_path

        if data.path is not None:
            source = open_path(data.path, self.layout, self.fold, self.camera, self.fps, self.labels)
        elif data.synthetic is not None:
            source = open_path(data.synthetic.generate())
        else:
            raise UserError("no data was provided: set data.path to a folder, a manifest or shards (--data PATH)")
        if source.kind is Clips:
            source = replace(source, marks_images=self.images == "sequence")
        return self._with_arrays(source) if self.actions else replace(source, actions=None)

    def _with_arrays(self, source: Source) -> Source:
        """The source with what is read beside the actions.

        Raises:
            UserError: there is no such array, or it is not what it has to be.
        """
        for setting, name in (("states", self.states), ("expert", self.expert)):
            if name and source.actions is None:
                raise UserError(
                    f"{source.root} has no actions, beside which {setting} {name!r} are read: put an array of that "
                    f"name into each NAME.actions.npz, or leave out data.reads.{setting}"
                )
        if self.states:
            source = replace(source, state_dim=self._row_size(source, self.states))
        if self.changes is not None:
            if not self.states:
                raise UserError(
                    "data.reads.changes needs states whose changes are actions: name their array (data.reads.states)"
                )
            check_changes(self.changes, self.states, source.state_dim)
            source = replace(source, actions=ActionSpace(action_dim=source.state_dim))
        if self.expert:
            assert source.actions is not None, "it was checked"
            if (size := self._row_size(source, self.expert)) != source.actions.action_dim:
                raise UserError(
                    f"an expert's actions {self.expert!r} have {size} numbers, and those that were taken "
                    f"{source.actions.action_dim}"
                )
            source = replace(source, has_expert=True)
        return source

    def _row_size(self, source: Source, name: str) -> int:
        """The size of a row of an array beside the actions, of the first video for which it can be read.

        Raises:
            UserError: there is none.
        """
        why = "no video has actions"
        for sample in source.samples[:_TRIED]:
            try:
                if sample.actions is not None:
                    return sample.actions.read_states(name).shape[1]
            except (OSError, ValueError) as error:
                why = f"{sample.name}: {error}"
        raise UserError(f"{source.root} has no states {name!r}: {why}")

    def sizes(self, data: Data, network: Any) -> dict[str, int]:
        """Sizes of ``data.clip``."""
        clip = data.clip
        shape = {"T": clip.num_frames, "C": 3, "H": clip.size, "W": clip.size} | native_sizes(clip)
        vectors = {"A": getattr(network, "action_dim", 0), "S": getattr(network, "state_dim", 0)}
        return shape | vectors | {"K": getattr(network, "num_classes", None) or 1}

    def told_sizes(self, data: Data, info: ClipInfo) -> dict[str, int]:
        """Those of ``data.clip``, with the actions and classes of the videos."""
        return self.sizes(data, None) | {"A": info.action_dim, "S": info.state_dim, "K": len(info.classes) or 1}

    def shown(self, data: Data) -> str:
        """Number of frames and their size."""
        return f"clips of {data.clip.num_frames} frames of {data.clip.size} x {data.clip.size} pixels"

    @staticmethod
    def example_info(sizes: Mapping[str, int], **told: Any) -> ClipInfo:
        """See :meth:`Kind.example_info`."""
        return ClipInfo(**told, action_dim=sizes.get("A", 0), state_dim=sizes.get("S", 0) if sizes.get("A") else 0)

    @staticmethod
    def example(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
        """Smooth, drifting random clips of random classes; see :meth:`Kind.example`."""
        return draw_clips(sizes, generator)


@dataclass(frozen=True, kw_only=True)
class ClipInfo(DataInfo):
    """Properties of clips that objectives need."""

    num_actions: int = 0
    """Number of discrete actions; zero if there are none, or they are continuous."""
    action_dim: int = 0
    """Dimension of a continuous action; zero if there are none, or they are discrete."""
    action_names: tuple[str, ...] = ()
    """Names of discrete actions in order, if known."""
    state_dim: int = 0
    """Dimension of the state at each frame; zero if none are read."""


def native_sizes(clip: Clip) -> dict[str, int]:
    """Sizes of square frames of the largest number of patches, where frames have their own sizes."""
    if (native := clip.native) is None:
        return {}
    room = native.room(clip.num_frames)
    side = max(1, math.isqrt(room)) * native.patch
    return {"H": side, "W": side, "N": room}


def cut(
    sample: Sample,
    data: Data,
    *,
    rng: np.random.Generator | None = None,
    num_clips: int = 1,
    num_crops: int = 1,
    actions: ActionSpace | None = None,
    numbered: bool = False,
) -> list[Row]:
    """Sample clips from one video: at random with ``rng``, else evenly spaced, each as ``num_crops`` square crops.

    With ``actions``, the rows include the clips' actions; if ``numbered``, the numbers of their frames in the file.

    Raises:
        DecodeError, OSError: the video or its actions cannot be read.
        UserError: the clips skip frames, and the actions do not allow that.
    """
    if actions is not None:
        check_clip(actions, data.clip)
    exact = {"snap": False, "key_starts": False} if rng is None else {}
    with open_video(sample.file(), backend=data.backend) as decoder:
        clips = read_clips(
            decoder,
            **asdict(replace(data.clip, native=None)) | exact | _native(data.clip),
            rng=rng,
            num_clips=num_clips,
            num_crops=num_crops,
            start=sample.start,
            end=sample.end,
        )
        is_images, info = _is_images(sample, data), decoder.info
        if actions is None:
            rows = with_sizes([_row(clip, info, is_images=is_images) for clip in clips], data.clip)
            return _numbered(rows, clips, decoder) if numbered else rows
        frame_times = decoder.times()
    reads = data.reads if isinstance(data.reads, Clips) else Clips()
    where: dict[str, Any] = {"path": sample.path, "frame_times": frame_times, "shown": [clip.times for clip in clips]}
    if reads.changes is None:
        cut_off = any(clip.truncated for clip in clips)
        done = clip_actions(sample.actions, actions, **where, truncated=cut_off)
    elif sample.actions is None:
        raise DecodeError(sample.path, 0, "it has no states, but other videos of the collection do")
    else:
        done = clip_changes(sample.actions, reads.states, reads.changes, **where)
    beside: list[Sequence[np.ndarray | None]] = []
    for name in (reads.states, reads.expert):
        if name:
            assert sample.actions is not None, "its actions were read"
            beside.append(clip_states(sample.actions, name, **where))
        else:
            beside.append([None] * len(clips))
    return [_row(clip, info, *own, is_images=is_images) for clip, *own in zip(clips, done, *beside)]


def _numbered(rows: Sequence[Row], clips: Sequence[Frames], decoder: Decoder) -> list[Row]:
    """Rows with the number in the file of each frame that was decoded for them."""
    times = decoder.times()
    found = [np.searchsorted(times, clip.times + 1e-6, side="right") - 1 for clip in clips]
    return [replace(row, numbers=tuple(numbers.clip(min=0).tolist())) for row, numbers in zip(rows, found)]


def cut_in_turn(samples: Sequence[Sample], data: Data, num_clips: int = 1, num_crops: int = 1) -> list[list[Row]]:
    """The rows that :func:`cut` returns for evaluation, of each of several parts of one file.

    Raises:
        DecodeError, OSError: the video, or the part of one of them, cannot be read.
    """
    with open_video(samples[0].file(), backend=data.backend) as decoder:
        parts = [(sample.start, sample.end) for sample in samples]
        is_images = _is_images(samples[0], data)
        return [
            with_sizes([_row(clip, decoder.info, is_images=is_images) for clip in clips], data.clip)
            for clips in cut_parts(decoder, data.clip, parts, num_clips, num_crops)
        ]


def _native(clip: Clip) -> dict[str, Any]:
    """The size of whole frames, as readers of clips take it."""
    return {"native": None if clip.native is None else clip.native.size_of}


def with_sizes(rows: Sequence[Row], clip: Clip) -> list[Row]:
    """Rows with the size of their frames, where these have their own."""
    if (native := clip.native) is None:
        return list(rows)
    told = []
    for row in rows:
        frames, _, height, width = row.content["video"].shape
        room, count = native.room(frames), (height // native.patch) * (width // native.patch)
        sizes = {
            "frame_size": torch.tensor([height, width]),
            "is_patch": torch.arange(max(room, count)) < count,
        }
        told.append(replace(row, content=row.content | sizes))
    return told


def _is_images(sample: Sample, data: Data) -> bool | None:
    """Whether clips are images and no video; None where batches do not say."""
    if not isinstance(data.reads, Clips) or data.reads.images == "still":
        return None
    return sample.is_image and data.clip.num_frames == 1  # a longer clip shows an image that stands still


def _row(
    clip: Frames,
    info: VideoInfo,
    action: np.ndarray | None = None,
    state: np.ndarray | None = None,
    expert: np.ndarray | None = None,
    *,
    is_images: bool | None = None,
) -> Row:
    content = {"video": clip.video}
    for key, value in (("action", action), ("state", state), ("expert", expert)):
        if value is not None:
            content[key] = torch.from_numpy(value)
    if is_images is not None:
        content["images"] = torch.tensor(is_images)
    times = (clip.times[0], clip.times[-1])
    shown = (0.0, 0.0, 1.0, 1.0)
    if (crop := clip.crop) is not None:
        ends = crop.left + crop.width, crop.top + crop.height
        shown = (crop.left / info.width, crop.top / info.height, ends[0] / info.width, ends[1] / info.height)
    return Row(content=content, times=times, damaged=clip.damaged, truncated=clip.truncated, shown=shown)


def cut_parts(
    decoder: Decoder,
    clip: Clip,
    parts: Iterable[tuple[float | None, float | None]],
    num_clips: int = 1,
    num_crops: int = 1,
) -> Iterator[list[Frames]]:
    """The evaluation clips of each part of an open video (its first and last second), in turn.

    Raises:
        DecodeError: (while iterating) nothing could be decoded, or the part is outside the video.
    """
    return read_parts(
        decoder,
        parts,
        num_frames=clip.num_frames,
        stride=clip.stride,
        sampling=clip.sampling,
        size=clip.size,
        num_clips=num_clips,
        num_crops=num_crops,
        eval_short_side=clip.eval_short_side,
        **_native(clip if clip.native is None else replace(clip, native=clip.native.evaluated())),
    )


def draw_clips(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
    """``B`` smooth, drifting random clips with labels below ``K`` and the keys of all kinds; with ``A`` and ``S``,
    also actions and states."""
    rows, frames, height, width = (sizes[letter] for letter in "BTHW")
    coarse = torch.rand(rows, 3, max(1, height // 8), max(1, width // 8), generator=generator)
    image = F.interpolate(coarse, size=(height, width), mode="bilinear")
    drift = torch.randint(-3, 4, (rows, 2), generator=generator).tolist()
    video = [
        torch.stack([one.roll((dy * t, dx * t), dims=(1, 2)) for t in range(frames)])
        for one, (dy, dx) in zip(image, drift)
    ]
    batch = {
        "video": (torch.stack(video) * 255).to(torch.uint8),
        "label": torch.randint(0, sizes["K"], (rows,), generator=generator),
        **draw_common(rows, generator),
    }
    if sizes.get("A"):  # vectors that say how the image drifts
        moved = torch.tensor(drift).repeat(1, sizes["A"])[:, None, : sizes["A"]].expand(-1, frames, -1) / 3
        batch["action"] = moved.contiguous()
        if sizes.get("S"):
            batch["state"] = moved.repeat(1, 1, sizes["S"])[..., : sizes["S"]].cumsum(dim=1) / frames
    return batch


def draw_common(rows: int, generator: torch.Generator) -> Batch:
    """The keys of all kinds, for ``rows`` samples of one second."""
    return {
        "seed": torch.randint(0, 2**40, (rows,), generator=generator),
        "name": [f"sample {i}" for i in range(rows)],
        "index": torch.arange(rows),
        "span": torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(rows, 1),
    }
